# Every find, once. Minimum versions are those of Debian 12, on which all of this is tested.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

pkg_check_modules(UV REQUIRED IMPORTED_TARGET libuv>=1.44)
pkg_check_modules(LIBURING REQUIRED IMPORTED_TARGET liburing>=2.3)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.14)
pkg_check_modules(HIREDIS REQUIRED IMPORTED_TARGET hiredis>=0.14)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c>=1.4)
pkg_check_modules(LIBAV REQUIRED IMPORTED_TARGET libavformat>=59 libavcodec>=59 libavutil>=57 libswscale>=6)
pkg_check_modules(TURBOJPEG REQUIRED IMPORTED_TARGET libturbojpeg>=2.1)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.42)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc>=2.6)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash>=0.8)
pkg_check_modules(ISAL REQUIRED IMPORTED_TARGET libisal>=2.30)

# grpc.pc lists a hundred abseil libraries that the shared library already pulls in.
find_library(REELKV_GRPC_LIBRARY grpc REQUIRED)
find_library(REELKV_GPR_LIBRARY gpr REQUIRED)
add_library(reelkv_grpc INTERFACE)
target_link_libraries(reelkv_grpc INTERFACE "${REELKV_GRPC_LIBRARY}" "${REELKV_GPR_LIBRARY}" Threads::Threads)

find_library(REELKV_DNNL_LIBRARY dnnl REQUIRED)
add_library(reelkv_dnnl INTERFACE)
target_link_libraries(reelkv_dnnl INTERFACE "${REELKV_DNNL_LIBRARY}")

find_program(REELKV_PROTOC protoc REQUIRED)
find_program(REELKV_PROTOC_GEN_C protoc-gen-c REQUIRED)
find_path(REELKV_GRPC_PROTO_DIR grpc/health/v1/health.proto PATHS /usr/share/grpc-proto REQUIRED)
