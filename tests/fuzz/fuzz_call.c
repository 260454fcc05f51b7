#include "fuzz_call.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/require.h"
#include "kvstore/kvstore_directory.h"
#include "rpc/payload.h"

enum { WRITES_BETWEEN_REFUSALS = 5 };

struct rpc_call {
    struct loop *loop;
    const struct rpc_method *method;
    struct arena arena, message_arena;
    uint8_t *bytes; /* of the message at hand */
    struct rpc_message message;
    rpc_call_message_fn *on_message;
    void (*on_end)(struct rpc_call *call, void *user);
    void (*on_writable)(struct rpc_call *call, void *user);
    void *user;
    uint32_t refs, writes;
    bool is_over, was_cancelled, is_writable_due;
    struct status end;
    struct letter ending, writable;
};

struct attachment {
    struct letter letter;
    void (*release)(void *arg);
    void *arg;
};

static uint32_t alive;
static fuzz_call_saw_fn *show;

void fuzz_call_show(fuzz_call_saw_fn *saw)
{
    show = saw;
}

uint32_t fuzz_calls_alive(void)
{
    return alive;
}

/* --- the test's side --- */

static bool take(struct rpc_call *call, const uint8_t *data, size_t len, struct status *st)
{
    struct bytes piece;

    arena_reset(&call->message_arena);
    free(call->bytes);
    call->bytes = malloc(len + 1);
    REQUIRE(call->bytes != NULL);
    memcpy(call->bytes, data, len);
    piece = (struct bytes){ call->bytes, len };
    return payload_unpack(call->method->request, &call->method->request_payload, &piece, 1,
                          &call->message_arena, &call->message, st);
}

struct rpc_call *fuzz_call_open(struct loop *loop, const struct rpc_handler *handler, void *state,
                                const uint8_t *data, size_t len)
{
    struct rpc_call *call = calloc(1, sizeof *call);
    bool has_request = handler->method->shape == RPC_UNARY || handler->method->shape == RPC_SERVER_STREAM;
    struct status st;

    REQUIRE(call != NULL);
    call->loop = loop;
    call->method = handler->method;
    call->arena.limit_bytes = call->message_arena.limit_bytes = LIMIT_CALL_BYTES;
    call->user = state;
    call->refs = 2; /* the test's, and that of the call itself */
    alive++;
    if (has_request && !take(call, data, len, &st)) {
        call->is_over = true;
        call->refs = 1;
        fuzz_call_let_go(call);
        return NULL;
    }
    handler->open(call, state);
    return call;
}

bool fuzz_call_is_over(const struct rpc_call *call)
{
    return call->is_over;
}

const struct status *fuzz_call_end(const struct rpc_call *call)
{
    return &call->end;
}

bool fuzz_call_is_idle(const struct rpc_call *call)
{
    return call->is_over || call->on_message != NULL;
}

static void deliver(struct rpc_call *call, const struct rpc_message *message)
{
    rpc_call_message_fn *on_message = call->on_message;

    call->on_message = NULL;
    on_message(call, message, call->user);
}

void fuzz_call_send(struct rpc_call *call, const uint8_t *data, size_t len)
{
    struct status malformed;

    if (take(call, data, len, &malformed))
        deliver(call, &call->message);
    else
        rpc_call_finish(call, &malformed);
}

void fuzz_call_half_close(struct rpc_call *call)
{
    deliver(call, NULL);
}

void fuzz_call_let_go(struct rpc_call *call)
{
    const struct status cancelled = { .code = STATUS_CANCELLED };

    call->was_cancelled = !call->is_over;
    rpc_call_finish(call, &cancelled);
    rpc_call_unref(call);
}

/* --- the handlers' side --- */

const struct rpc_message *rpc_call_request(const struct rpc_call *call)
{
    return &call->message;
}

void rpc_call_read(struct rpc_call *call, rpc_call_message_fn *on_message)
{
    REQUIRE(call->on_message == NULL);
    call->on_message = on_message;
}

static void attachment_came_back(struct letter *letter)
{
    struct attachment *attachment = container_of(letter, struct attachment, letter);

    alive--;
    attachment->release(attachment->arg);
    free(attachment);
}

static void take_attachment(struct rpc_call *call, const struct rpc_attachment *given)
{
    struct attachment *attachment = calloc(1, sizeof *attachment);
    const uint8_t *data = given->data;
    uint32_t sum = 0;

    REQUIRE(attachment != NULL);
    for (size_t i = 0; i < given->len; i++)
        sum += data[i];
    REQUIRE(sum <= given->len * UINT8_MAX);
    *attachment = (struct attachment){ { .open = attachment_came_back }, given->release, given->arg };
    alive++;
    loop_post(call->loop, &attachment->letter);
}

static void writable_again(struct letter *letter)
{
    struct rpc_call *call = container_of(letter, struct rpc_call, writable);

    call->is_writable_due = false;
    if (!call->is_over && call->on_writable != NULL)
        call->on_writable(call, call->user);
    rpc_call_unref(call);
}

bool rpc_call_can_write(const struct rpc_call *call)
{
    return !call->is_over && !call->is_writable_due;
}

/* What is written is shown at once. */
void rpc_call_cork(struct rpc_call *call)
{
    (void)call;
}

void rpc_call_uncork(struct rpc_call *call)
{
    (void)call;
}

bool rpc_call_write(struct rpc_call *call, const ProtobufCMessage *message,
                    const struct rpc_attachment *attachment)
{
    const struct rpc_payload_path *path = attachment == NULL ? NULL : &call->method->reply_payload;

    if (!rpc_call_can_write(call))
        return false;
    REQUIRE(payload_head_bytes(message, path, attachment == NULL ? 0 : attachment->len) <=
            LIMIT_MESSAGE_BYTES);
    if (show != NULL)
        show(message, attachment);
    if (attachment != NULL && attachment->release != NULL)
        take_attachment(call, attachment);
    if (++call->writes % WRITES_BETWEEN_REFUSALS == 0) {
        call->is_writable_due = true;
        call->writable.open = writable_again;
        rpc_call_ref(call);
        loop_post(call->loop, &call->writable);
    }
    return true;
}

void rpc_call_on_writable(struct rpc_call *call, void (*on_writable)(struct rpc_call *call, void *user))
{
    call->on_writable = on_writable;
}

static void ended(struct letter *letter)
{
    struct rpc_call *call = container_of(letter, struct rpc_call, ending);

    if (call->on_end != NULL)
        call->on_end(call, call->user);
    rpc_call_unref(call);
}

void rpc_call_finish(struct rpc_call *call, const struct status *status)
{
    if (call->is_over)
        return;
    call->is_over = true;
    if (status != NULL)
        call->end = *status;
    call->ending.open = ended;
    loop_post(call->loop, &call->ending);
}

void rpc_call_reply(struct rpc_call *call, const ProtobufCMessage *message,
                    const struct rpc_attachment *attachment)
{
    REQUIRE(attachment == NULL);
    rpc_call_write(call, message, NULL);
    rpc_call_finish(call, NULL);
}

void rpc_call_on_end(struct rpc_call *call, void (*on_end)(struct rpc_call *call, void *user))
{
    call->on_end = on_end;
}

bool rpc_call_was_cancelled(const struct rpc_call *call)
{
    return call->was_cancelled;
}

void rpc_call_set_user(struct rpc_call *call, void *user)
{
    call->user = user;
}

struct arena *rpc_call_arena(struct rpc_call *call)
{
    return &call->arena;
}

void rpc_call_ref(struct rpc_call *call)
{
    call->refs++;
}

void rpc_call_unref(struct rpc_call *call)
{
    if (--call->refs > 0)
        return;
    arena_reset(&call->arena);
    arena_reset(&call->message_arena);
    free(call->bytes);
    free(call);
    alive--;
}

const char *rpc_call_peer(const struct rpc_call *call)
{
    (void)call;
    return "nobody";
}

const char *rpc_call_request_id(const struct rpc_call *call)
{
    (void)call;
    return "1";
}

/* There is no directory to tell. */
void kvstore_directory_changed(struct kvstore_directory *directory, const struct stream *stream)
{
    (void)directory, (void)stream;
}

void kvstore_directory_removed(struct kvstore_directory *directory, const char *ns, const char *name)
{
    (void)directory, (void)ns, (void)name;
}
