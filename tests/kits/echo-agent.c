/* A program that takes messages in a guest: the least that an agent is. It answers
 * each message on 127.0.0.1:7778 with one of its own through 127.0.0.1:7777.
 *
 *   any text              the answer is "echo: " and the text, in two pieces before
 *   api METHOD PATH BODY  the answer is the status and the body of that request
 *   refuse                the message is refused (400)
 *   later                 it is not taken (503) the first two times
 *
 * Pieces of a model's answer (/v1/llm/recv) go to /var/pieces, a line each.
 *
 * What it took is noted in /var/taken, a msg_id a line, before it is told. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BIG (2 << 20)
static char in[BIG], text[BIG], line[BIG + 64], said[2 * BIG], out[3 * BIG], got[BIG];

/* The string value of a key, unescaped as far as tests need it. */
static int value(const char *json, const char *key, char *into) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"%s\":\"", key);
    const char *at = strstr(json, wanted);
    if (!at) return 0;
    for (at += strlen(wanted); *at && *at != '"'; at++) {
        if (*at == '\\') {
            at++;
            *into++ = *at == 'n' ? '\n' : *at;
        } else {
            *into++ = *at;
        }
    }
    *into = 0;
    return 1;
}

static void escape(const char *from, char *into) {
    for (; *from; from++) {
        unsigned char c = *from;
        if (c == '"' || c == '\\') *into++ = '\\', *into++ = c;
        else if (c == '\n') *into++ = '\\', *into++ = 'n';
        else if (c >= ' ') *into++ = c;
    }
    *into = 0;
}

/* One request to the API of the instance; the status, 0 if there was no answer. */
static int ask(const char *method, const char *path, const char *body, char *answer) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7777)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int s = socket(AF_INET, SOCK_STREAM, 0), status = 0;
    if (connect(s, (void *)&to, sizeof to) == 0) {
        dprintf(s, "%s %s HTTP/1.1\r\nHost: guest\r\nContent-Length: %zu\r\n\r\n%s", method, path,
                strlen(body), body);
        size_t length = 0;
        ssize_t count;
        while ((count = read(s, got + length, BIG - 1 - length)) > 0) length += count;
        got[length] = 0;
        sscanf(got, "HTTP/1.1 %d", &status);
        char *rest = strstr(got, "\r\n\r\n");
        if (answer) strcpy(answer, rest ? rest + 4 : "");
    }
    close(s);
    return status;
}

/* Sends a frame until it is taken. */
static void tell(const char *type, const char *session, const char *id, const char *words) {
    escape(words, said);
    snprintf(out, sizeof out,
             "{\"v\":1,\"type\":\"%s\",%s,\"msg_id\":\"re-%s\",\"reply_to_msg_id\":\"%s\","
             "\"payload\":{\"text\":\"%s\"}}",
             type, session, id, id, said);
    while (ask("POST", "/v1/tether/send", out, NULL) != 200) usleep(100000);
}

static void note(const char *path, const char *id) {
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (file < 0) return;
    dprintf(file, "%s\n", id);
    fsync(file);
    close(file);
}

static void reply(const char *session, const char *id) {
    static char answer[BIG], method[16], path[256];
    int end = 0;
    if (sscanf(text, "api %15s %255s %n", method, path, &end) >= 2) {
        int status = ask(method, path, text + end, answer);
        snprintf(line, sizeof line, "%d %s", status, answer);
        tell("assistant.done", session, id, line);
        return;
    }
    tell("status.presence", session, id, "");
    tell("assistant.delta", session, id, "echo: ");
    tell("assistant.delta", session, id, text);
    snprintf(line, sizeof line, "echo: %s", text);
    tell("assistant.done", session, id, line);
}

int main(void) {
    static char id[512], session[1024];
    int late = 0, on = 1;
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(7778)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 16)) return 1;
    for (;;) {
        int s = accept(listener, NULL, NULL);
        size_t length = 0, whole = 0;
        ssize_t count;
        while ((count = read(s, in + length, BIG - 1 - length)) > 0) {
            length += count;
            in[length] = 0;
            char *rest = strstr(in, "\r\n\r\n"), *told = strcasestr(in, "content-length:");
            if (rest && told) whole = rest + 4 - in + strtoul(told + 15, NULL, 10);
            if (whole && length >= whole) break;
        }
        char *body = strstr(in, "\r\n\r\n"), *from = strstr(in, "\"session\":{");
        const char *status = "202 Accepted";
        int piece = !strncmp(in, "POST /v1/llm/recv ", 18);
        if (piece && body) {
            note("/var/pieces", body + 4);
        } else if (!body || !from || !value(body, "msg_id", id)) {
            status = "400 Bad Request";
        } else {
            snprintf(session, sizeof session, "%.*s", (int)(strchr(from, '}') + 1 - from), from);
            *text = 0;
            value(body, "text", text);
            if (!strcmp(text, "refuse")) status = "400 Bad Request";
            if (!strcmp(text, "later") && late++ < 2) status = "503 Service Unavailable";
        }
        int taken = *status == '2' && !piece;
        if (taken) note("/var/taken", id);
        dprintf(s, "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status);
        close(s);
        if (taken) reply(session, id);
    }
}
