// SPDX-License-Identifier: Apache-2.0
// udp_echo ADDRESS PORT: answers every UDP datagram with itself.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: udp_echo ADDRESS PORT\n");
        return 2;
    }
    sockaddr_in local{};
    local.sin_family = AF_INET;
    local.sin_port = htons(static_cast<std::uint16_t>(std::atoi(argv[2])));
    if (inet_pton(AF_INET, argv[1], &local.sin_addr) != 1) return 2;
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&local), sizeof local) != 0) {
        std::perror("udp_echo");
        return 1;
    }
    std::array<char, 2048> packet{};
    for (;;) {
        sockaddr_in from{};
        socklen_t length = sizeof from;
        const ssize_t got =
            recvfrom(fd, packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
        if (got < 0) continue;
        // An answer that cannot be sent is a lost answer; the pinger counts it.
        [[maybe_unused]] const ssize_t sent = sendto(fd, packet.data(), static_cast<std::size_t>(got), 0,
                                                     reinterpret_cast<sockaddr*>(&from), length);
    }
}
