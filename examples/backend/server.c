/* The example application's backend: answers /api/v1/healthcheck with the version that was built into its image.
 *
 * Linked statically, so that the image needs nothing else. Listens on PORT (default: 8080). `server migrate` plays
 * the task that migrates the database: it prints the names of the migrations in /migrations and exits.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *variable(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static int migrate(void) {
    DIR *folder = opendir("/migrations");
    struct dirent *entry;
    if (!folder) {
        perror("/migrations");
        return 1;
    }
    while ((entry = readdir(folder)))
        if (strstr(entry->d_name, ".sql"))
            printf("applied %s\n", entry->d_name);
    return 0;
}

static void answer(int connection) {
    char request[4096], body[512], head[256];
    ssize_t length = read(connection, request, sizeof request - 1);
    const char *status = "200 OK";
    if (length <= 0)
        return;
    request[length] = 0;
    if (strncmp(request, "GET /api/v1/healthcheck ", 24) == 0) {
        snprintf(body, sizeof body,
                 "{\"status\":\"pass\",\"datetime\":\"%s\",\"version\":\"%s\",\"timestamp\":\"%s\"}",
                 variable("APPLICATION_DATETIME", ""), variable("APPLICATION_VERSION", ""),
                 variable("APPLICATION_TS", ""));
    } else {
        status = "404 Not Found";
        strcpy(body, "{\"status\":\"not found\"}");
    }
    snprintf(head, sizeof head,
             "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
             status, strlen(body));
    if (write(connection, head, strlen(head)) < 0 || write(connection, body, strlen(body)) < 0)
        perror("write");
}

int main(int count, char **words) {
    int yes = 1, door, connection;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (count > 1 && strcmp(words[1], "migrate") == 0)
        return migrate();
    signal(SIGPIPE, SIG_IGN);
    address.sin_port = htons((unsigned short)atoi(variable("PORT", "8080")));
    door = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(door, (struct sockaddr *)&address, sizeof address) || listen(door, 16)) {
        perror("listen");
        return 1;
    }
    while ((connection = accept(door, NULL, NULL)) >= 0) {
        answer(connection);
        close(connection);
    }
    return 1;
}
