# The dependency rule (docs/architecture.md): arrows point down, one vendor one folder.
# Input: every C and CUDA file of lib, services, cli and bench. Output: a sentence for each include that breaks it.
BEGIN {
    allow["lib/base"] = "base jansson"
    allow["lib/loop"] = "base loop uv"
    allow["lib/uring"] = "base loop uring liburing"
    allow["lib/rpc"] = "base loop rpc proto grpc protobuf-c"
    allow["lib/redis"] = "base loop redis hiredis"
    allow["lib/media"] = "base media libav turbojpeg"
    allow["lib/tensor"] = "base tensor dnnl cuda nccl omp x86"
    allow["lib/kv"] = "base kv isal x86"
    allow["lib/model"] = "base tensor kv model pcre2 utf8proc xxhash"
    allow["lib/store"] = "base loop rpc redis kv store proto protobuf-c"
    services = "base loop uring rpc redis store media tensor kv model proto protobuf-c"
    vendor["jansson.h"] = "jansson"; vendor["uv.h"] = "uv"; vendor["turbojpeg.h"] = "turbojpeg"
    vendor["utf8proc.h"] = "utf8proc"; vendor["pcre2.h"] = "pcre2"; vendor["xxhash.h"] = "xxhash"
    vendor["omp.h"] = "omp"; vendor["immintrin.h"] = "x86"; vendor["nccl.h"] = "nccl"
    vendor["isa-l.h"] = "isal"; vendor["cpuid.h"] = "x86"; vendor["liburing.h"] = "liburing"
    split("base loop uring rpc redis store media tensor kv model", list); for (i in list) module[list[i]] = 1
}
function folder_of(file,    part) {
    split(file, part, "/")
    return part[1] "/" part[2]
}
function kind_of(header,    top) {
    if (header in vendor) return vendor[header]
    top = header; sub(/\/.*/, "", top)
    if (top == "libavformat" || top == "libavcodec" || top == "libavutil" || top == "libswscale") return "libav"
    if (top == "grpc") return header ~ /pb-c/ ? "proto" : "grpc"
    if (top == "reelkv") return "proto"
    if (top == "oneapi" || header ~ /^dnnl/) return "dnnl"
    if (header ~ /^cuda/ || header ~ /^cublas/) return "cuda"
    if (top == "isa-l") return "isal"
    if (top == "hiredis" || top == "protobuf-c") return top
    if (header ~ /\// && top in module) return top
    if (header ~ /\// && top ~ /^(encoder|analyzer|qa|kvstore|gateway)$/) return "service " top
    return ""  # libc, or a header of the same folder
}
FNR == 1 { folder = folder_of(FILENAME); top = FILENAME; sub(/\/.*/, "", top) }
/^[ \t]*#[ \t]*include/ {
    header = $0; sub(/^[^<"]*[<"]/, "", header); sub(/[>"].*/, "", header)
    kind = kind_of(header)
    if (kind == "") next
    if (top == "lib") rule = allow[folder]
    else if (top == "services") {
        rule = services; own = folder; sub(/.*\//, "", own)
        if (kind == "service " own) next
    } else { rule = services " dnnl"; if (folder == "bench/load") rule = rule " grpc"; if (kind ~ /^service/ && top == "tests") next }
    owner = header; sub(/\/.*/, "", owner)
    inner = header ~ /\/.*_internal\.h$/ && folder !~ ("/" owner "$")
    if (inner || index(" " rule " ", " " kind " ") == 0) {
        printf "%s:%d: %s may not include %s\n", FILENAME, FNR, top == "services" ? "services/*" : folder, header
        bad = 1
    }
}
END { exit bad }
