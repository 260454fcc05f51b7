#include "kv_raw.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/require.h"
#include "kv_limits.h"
#include "kv_server.h"

enum { CHANNELS_MAX = 64, ROOM_SLICES = 32 };

static size_t slice_count, slice_size;
static int port;
static pid_t sender_pid;

/* --- the sender --- */

struct sender {
    grpc_call *call;
    grpc_call_details details;
    grpc_metadata_array metadata;
    size_t next, end;
    bool is_ending;
    int cancelled;
};

static const uint8_t *source;
static grpc_server *server;
static grpc_completion_queue *queue;

static void ask_for_call(void)
{
    struct sender *sender = calloc(1, sizeof *sender);

    if (sender == NULL)
        kv_die("no memory for a call");
    grpc_call_details_init(&sender->details);
    grpc_metadata_array_init(&sender->metadata);
    grpc_server_request_call(server, &sender->call, &sender->details, &sender->metadata, queue, queue,
                             sender);
}

/* "/raw/FIRST-END" says which slices. */
static void read_range(struct sender *sender)
{
    char *path = grpc_slice_to_c_string(sender->details.method);

    if (sscanf(path, "/raw/%zu-%zu", &sender->next, &sender->end) != 2 || sender->end > slice_count)
        kv_die("the sender was asked for %s", path);
    gpr_free(path);
}

static void send_next(struct sender *sender, bool is_first)
{
    grpc_op ops[2] = { { 0 } };
    grpc_byte_buffer *buffer = NULL;
    size_t count = 0;

    if (is_first)
        ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (sender->next < sender->end) {
        grpc_slice slice = grpc_slice_from_static_buffer(source + sender->next++ * slice_size, slice_size);

        buffer = grpc_raw_byte_buffer_create(&slice, 1);
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count++].data.send_message.send_message = buffer;
    } else {
        sender->is_ending = true;
        ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
        ops[count++].data.send_status_from_server.status = GRPC_STATUS_OK;
    }
    if (grpc_call_start_batch(sender->call, ops, count, sender, NULL) != GRPC_CALL_OK)
        kv_die("the sender cannot send");
    if (buffer != NULL)
        grpc_byte_buffer_destroy(buffer);
}

static void end_call(struct sender *sender)
{
    grpc_call_unref(sender->call);
    grpc_call_details_destroy(&sender->details);
    grpc_metadata_array_destroy(&sender->metadata);
    free(sender);
}

static void serve(void)
{
    for (;;) {
        grpc_event event = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        struct sender *sender = event.tag;

        if (event.type != GRPC_OP_COMPLETE)
            return;
        if (sender->end == 0 && sender->next == 0) {
            read_range(sender);
            ask_for_call();
            send_next(sender, true);
        } else if (sender->is_ending || !event.success) {
            end_call(sender);
        } else {
            send_next(sender, false);
        }
    }
}

static grpc_channel_args arguments(void)
{
    static grpc_arg args[] = {
        { .type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, .value.integer = -1 },
        { .type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, .value.integer = 1 },
        { .type = GRPC_ARG_INTEGER,
          .key = (char *)GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES,
          .value.integer = 1 << 20 },
        { .type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_HTTP2_BDP_PROBE, .value.integer = 0 },
        { .type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_HTTP2_MAX_FRAME_SIZE, .value.integer = 1 << 20 },
    };

    return (grpc_channel_args){ ARRAY_LEN(args), args };
}

static void sender_main(int told)
{
    uint8_t *bytes = mmap(NULL, slice_count * slice_size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    grpc_channel_args args = arguments();
    grpc_server_credentials *plain;

    if (bytes == MAP_FAILED)
        kv_die("no memory for %zu slices", slice_count);
    for (size_t i = 0; i < slice_count * slice_size; i += 64)
        bytes[i] = (uint8_t)(i >> 6);
    source = bytes;
    grpc_init();
    plain = grpc_insecure_server_credentials_create();
    server = grpc_server_create(&args, NULL);
    queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server, queue, NULL);
    port = grpc_server_add_http2_port(server, "127.0.0.1:0", plain);
    grpc_server_credentials_release(plain);
    grpc_server_start(server);
    ask_for_call();
    if (port == 0 || write(told, &port, sizeof port) != sizeof port)
        kv_die("the sender has no port");
    serve();
}

void kv_raw_start(size_t slices, size_t slice_bytes)
{
    int ends[2];
    pid_t child;

    slice_count = slices;
    slice_size = slice_bytes;
    if (pipe(ends) != 0)
        kv_die("pipe: %m");
    child = fork();
    if (child < 0)
        kv_die("fork: %m");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        sender_main(ends[1]);
        _exit(0);
    }
    sender_pid = child;
    close(ends[1]);
    if (read(ends[0], &port, sizeof port) != sizeof port)
        kv_die("the sender of bare slices did not start");
    close(ends[0]);
}

/* --- the receiver --- */

struct receiver {
    grpc_channel *channel;
    grpc_completion_queue *queue;
    grpc_call *call;
    size_t first, end;
    uint64_t bytes;
    uint8_t *room, *to; /* ROOM_SLICES, used in turns */
};

static void pluck(struct receiver *receiver, void *tag)
{
    grpc_completion_queue_pluck(receiver->queue, tag, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
}

static void open_call(struct receiver *receiver, grpc_metadata_array *initial)
{
    grpc_op ops[3] = { { 0 } };
    char path[64];

    snprintf(path, sizeof path, "/raw/%zu-%zu", receiver->first, receiver->end);
    receiver->queue = grpc_completion_queue_create_for_pluck(NULL);
    receiver->call = grpc_channel_create_call(receiver->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                              receiver->queue, grpc_slice_from_copied_string(path), NULL,
                                              gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_metadata_array_init(initial);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[2].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[2].data.recv_initial_metadata.recv_initial_metadata = initial;
    if (grpc_call_start_batch(receiver->call, ops, ARRAY_LEN(ops), receiver, NULL) != GRPC_CALL_OK)
        kv_die("bare call");
    pluck(receiver, receiver);
}

/* gRPC hands over pieces as it read them; whoever uses a slice wants it whole. */
static void put_in_place(struct receiver *receiver, grpc_byte_buffer *buffer)
{
    grpc_byte_buffer_reader reader;
    grpc_slice *piece;
    size_t done = 0;

    if (grpc_byte_buffer_length(buffer) != slice_size || !grpc_byte_buffer_reader_init(&reader, buffer))
        kv_die("a bare slice of %zu bytes", grpc_byte_buffer_length(buffer));
    while (grpc_byte_buffer_reader_peek(&reader, &piece)) {
        memcpy(receiver->to + done, GRPC_SLICE_START_PTR(*piece), GRPC_SLICE_LENGTH(*piece));
        done += GRPC_SLICE_LENGTH(*piece);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    receiver->bytes += done;
    receiver->to += slice_size;
    if (receiver->to == receiver->room + ROOM_SLICES * slice_size)
        receiver->to = receiver->room;
}

static bool receive_one(struct receiver *receiver)
{
    grpc_byte_buffer *buffer = NULL;
    grpc_op op = { .op = GRPC_OP_RECV_MESSAGE };

    op.data.recv_message.recv_message = &buffer;
    if (grpc_call_start_batch(receiver->call, &op, 1, receiver, NULL) != GRPC_CALL_OK)
        kv_die("bare read");
    pluck(receiver, receiver);
    if (buffer == NULL)
        return false;
    put_in_place(receiver, buffer);
    grpc_byte_buffer_destroy(buffer);
    return true;
}

static void receive_share(unsigned number, void *arg)
{
    struct receiver *receiver = (struct receiver *)arg + number;
    grpc_metadata_array initial, trailing;
    grpc_op op = { .op = GRPC_OP_RECV_STATUS_ON_CLIENT };
    grpc_status_code code = GRPC_STATUS_OK;
    grpc_slice details;

    open_call(receiver, &initial);
    while (receive_one(receiver))
        ;
    grpc_metadata_array_init(&trailing);
    op.data.recv_status_on_client.trailing_metadata = &trailing;
    op.data.recv_status_on_client.status = &code;
    op.data.recv_status_on_client.status_details = &details;
    if (grpc_call_start_batch(receiver->call, &op, 1, &op, NULL) != GRPC_CALL_OK)
        kv_die("bare end");
    pluck(receiver, &op);
    if (code != GRPC_STATUS_OK || receiver->bytes != (receiver->end - receiver->first) * slice_size)
        kv_die("the bare stream ended early");
    grpc_slice_unref(details);
    grpc_metadata_array_destroy(&initial);
    grpc_metadata_array_destroy(&trailing);
    grpc_call_unref(receiver->call);
    grpc_completion_queue_shutdown(receiver->queue);
    grpc_completion_queue_destroy(receiver->queue);
}

struct kv_limit kv_raw_receive(unsigned channels)
{
    static struct receiver receivers[CHANNELS_MAX];
    grpc_channel_args args = arguments();
    char target[64];
    double bytes = (double)(slice_count * slice_size), seconds, cpu;

    if (channels > CHANNELS_MAX)
        kv_die("%u channels; at most %d", channels, CHANNELS_MAX);
    grpc_init();
    snprintf(target, sizeof target, "127.0.0.1:%d", port);
    for (unsigned i = 0; i < channels; i++) {
        struct receiver *receiver = &receivers[i];

        if (receiver->channel == NULL) {
            grpc_channel_credentials *plain = grpc_insecure_credentials_create();

            receiver->channel = grpc_channel_create(target, plain, &args);
            grpc_channel_credentials_release(plain);
            receiver->room = receiver->to = calloc(ROOM_SLICES, slice_size);
            if (receiver->room == NULL)
                kv_die("no memory for slices");
        }
        receiver->bytes = 0;
        receiver->first = slice_count * i / channels;
        receiver->end = slice_count * (i + 1) / channels;
    }
    cpu = -kv_own_cpu() - kv_cpu_of(sender_pid);
    seconds = kv_threads(channels, receive_share, receivers);
    cpu += kv_own_cpu() + kv_cpu_of(sender_pid);
    grpc_shutdown();
    return (struct kv_limit){ .rate = bytes / seconds, .cpu = cpu / bytes * 1e9 };
}
