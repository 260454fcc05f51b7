#include "encoder/capture/capture_link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/require.h"

bool capture_link_open(struct capture_link *link, const struct capture_job *job, volatile sig_atomic_t *stop,
                       struct status *st)
{
    uint64_t bytes = job->slots * job->slot_bytes;
    struct stat info;

    if (fstat(CAPTURE_FD_POOL, &info) < 0 || (uint64_t)info.st_size < bytes)
        return status_fail(st, STATUS_INVALID, "descriptor %d is not the slots the job speaks of",
                           CAPTURE_FD_POOL);
    link->pool = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, CAPTURE_FD_POOL, 0);
    if (link->pool == MAP_FAILED)
        return status_fail(st, STATUS_EXHAUSTED, "map %llu bytes of slots: %m", (unsigned long long)bytes);
    link->socket = CAPTURE_FD_SOCKET;
    link->slots = job->slots;
    link->slot_bytes = job->slot_bytes;
    link->free = (1u << job->slots) - 1;
    link->stop = stop;
    return true;
}

uint8_t *capture_link_slot(const struct capture_link *link, uint32_t slot)
{
    REQUIRE(slot < link->slots);
    return link->pool + slot * link->slot_bytes;
}

/* Takes what the encoder has released by now. */
static void hear(struct capture_link *link)
{
    uint8_t packet[CAPTURE_MESSAGE_BYTES];

    while (!*link->stop) {
        ssize_t len = recv(link->socket, packet, sizeof packet, MSG_DONTWAIT);
        struct capture_message message;

        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0 && errno == EAGAIN)
            return;
        if (len <= 0 || !capture_message_read((struct bytes){ packet, (size_t)len }, &message, NULL) ||
            message.kind != CAPTURE_RELEASE || message.slot >= link->slots) {
            *link->stop = 1; /* the encoder is gone, or it is not one */
            return;
        }
        link->free |= 1u << message.slot;
    }
}

/* Until `events` or a message from the encoder comes; a signal ends the wait. */
static void wait_for(struct capture_link *link, short events, int timeout_ms)
{
    struct pollfd wanted = { .fd = link->socket, .events = (short)(events | POLLIN) };

    if (poll(&wanted, 1, timeout_ms) > 0 && (wanted.revents & (POLLIN | POLLHUP | POLLERR)) != 0)
        hear(link);
}

bool capture_link_take_slot(struct capture_link *link, bool wait, uint32_t *slot_p)
{
    hear(link);
    while (link->free == 0 && wait && !*link->stop)
        wait_for(link, 0, -1);
    if (link->free == 0 || *link->stop)
        return false;
    *slot_p = (uint32_t)__builtin_ctz(link->free);
    return true;
}

bool capture_link_send(struct capture_link *link, const struct capture_message *message, bool wait)
{
    uint8_t packet[CAPTURE_MESSAGE_BYTES];
    size_t len = capture_message_write(message, packet);

    while (!*link->stop) {
        if (send(link->socket, packet, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len) {
            if (message->kind == CAPTURE_FRAME)
                link->free &= ~(1u << message->slot);
            return true;
        }
        if (errno == EAGAIN && !wait)
            return false;
        if (errno == EAGAIN)
            wait_for(link, POLLOUT, -1);
        else if (errno != EINTR)
            *link->stop = 1;
    }
    return false;
}

void capture_link_sleep(struct capture_link *link, uint32_t ms)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)ms * 1000000, now_ns;

    while (!*link->stop && (now_ns = clock_mono_ns()) < end_ns)
        wait_for(link, 0, (int)((end_ns - now_ns) / 1000000) + 1);
}

bool capture_link_send_status(struct capture_link *link, enum capture_kind kind, const struct status *st)
{
    struct capture_message message = { .kind = kind, .code = st->code };

    snprintf(message.text, sizeof message.text, "%s", st->text);
    /* An ending is worth waiting for; trouble that goes on is told again. */
    return capture_link_send(link, &message, kind != CAPTURE_TROUBLE);
}
