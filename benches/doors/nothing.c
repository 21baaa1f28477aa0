/*
 * Two do-nothing servers to measure against: a milter with libmilter that takes every event, and a policy server that
 * answers DUNNO.
 *
 *   nothing milter SOCKET    SOCKET as in smtpd_milters: unix:PATH or inet:PORT@HOST
 *   nothing policy PATH      a unix socket
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <libmilter/mfapi.h>

#define UNUSED __attribute__((unused))

static sfsistat on_connect(UNUSED SMFICTX *c, UNUSED char *name, UNUSED _SOCK_ADDR *address) { return SMFIS_CONTINUE; }
static sfsistat on_text(UNUSED SMFICTX *c, UNUSED char *text) { return SMFIS_CONTINUE; }
static sfsistat on_path(UNUSED SMFICTX *c, UNUSED char **argv) { return SMFIS_CONTINUE; }
static sfsistat on_header(UNUSED SMFICTX *c, UNUSED char *name, UNUSED char *value) { return SMFIS_CONTINUE; }
static sfsistat on_body(UNUSED SMFICTX *c, UNUSED unsigned char *octets, UNUSED size_t count) { return SMFIS_CONTINUE; }
static sfsistat on_event(UNUSED SMFICTX *c) { return SMFIS_CONTINUE; }

static int serve_milter(char *socket_name)
{
    struct smfiDesc filter = {
        .xxfi_name = "nothing", .xxfi_version = SMFI_VERSION, .xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGHDRS,
        .xxfi_connect = on_connect, .xxfi_helo = on_text, .xxfi_envfrom = on_path, .xxfi_envrcpt = on_path,
        .xxfi_data = on_event, .xxfi_header = on_header, .xxfi_eoh = on_event, .xxfi_body = on_body,
        .xxfi_eom = on_event, .xxfi_abort = on_event, .xxfi_close = on_event,
    };
    if (smfi_setconn(socket_name) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS)
        return EXIT_FAILURE;
    umask(0);
    return smfi_main() == MI_SUCCESS ? EXIT_SUCCESS : EXIT_FAILURE;
}

enum { MOST = 1024, LONGEST = 8192 };

struct request { char octets[LONGEST]; size_t length; };

static struct pollfd descriptors[MOST];
static struct request *requests[MOST];

/* Answers each whole request; 0 when the connection is over. */
static int answer(int fd, struct request *request)
{
    static const char dunno[] = "action=DUNNO\n\n";
    ssize_t count = read(fd, request->octets + request->length, LONGEST - request->length);
    if (count <= 0)
        return 0;
    request->length += (size_t)count;
    if (request->length >= 2 && memcmp(request->octets + request->length - 2, "\n\n", 2) == 0) {
        request->length = 0;
        return write(fd, dunno, sizeof dunno - 1) == (ssize_t)(sizeof dunno - 1);
    }
    return request->length < LONGEST;
}

static int serve_policy(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    nfds_t open = 1;

    if (strlen(path) >= sizeof address.sun_path)
        return EXIT_FAILURE;
    strcpy(address.sun_path, path);
    umask(0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 128) != 0) {
        perror(path);
        return EXIT_FAILURE;
    }
    descriptors[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
    for (;;) {
        if (poll(descriptors, open, -1) < 0 && errno != EINTR)
            return EXIT_FAILURE;
        for (nfds_t i = open - 1; i > 0; i--) {
            if (descriptors[i].revents && !answer(descriptors[i].fd, requests[i])) {
                close(descriptors[i].fd);
                free(requests[i]);
                open--;
                descriptors[i] = descriptors[open];
                requests[i] = requests[open];
            }
        }
        if (descriptors[0].revents & POLLIN) {
            int fd = accept(listener, NULL, NULL);
            if (fd >= 0 && (open == MOST || !(requests[open] = calloc(1, sizeof **requests)))) {
                close(fd);
            } else if (fd >= 0) {
                descriptors[open] = (struct pollfd){ .fd = fd, .events = POLLIN };
                open++;
            }
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "milter") == 0)
        return serve_milter(argv[2]);
    if (argc == 3 && strcmp(argv[1], "policy") == 0)
        return serve_policy(argv[2]);
    fprintf(stderr, "usage: nothing milter SOCKET | nothing policy PATH\n");
    return EXIT_FAILURE;
}
