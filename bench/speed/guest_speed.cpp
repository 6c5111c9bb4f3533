// SPDX-License-Identifier: Apache-2.0
// guest_speed ADDRESS PORT: what this guest's processor and network card can do at all; prints one JSON
// object.
//
// instructions_per_s   a loop of known length, with a load and a store in every eight instructions
// copy_mb_s            pages copied from one 64 MiB buffer into another
// and for two seconds whatever one TCP connection takes, in large writes; the other end says how much that
// was.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kBufferPages = 16384;
constexpr double kStreamSeconds = 2;

double now_s() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

double instructions_per_s() {
    constexpr unsigned long kTurns = 20'000'000, kPerTurn = 8;
    unsigned long left = kTurns, sum = 1, place = 0;
    const double begun = now_s();
    asm volatile(
        "1: mov (%[at]), %%rax\n"
        "add %[sum], %%rax\n"
        "lea 3(%%rax), %[sum]\n"
        "xor %%rax, %[sum]\n"
        "mov %[sum], (%[at])\n"
        "inc %[sum]\n"
        "dec %[left]\n"
        "jnz 1b"
        : [left] "+r"(left), [sum] "+r"(sum)
        : [at] "r"(&place)
        : "rax", "cc", "memory");
    return static_cast<double>(kTurns * kPerTurn) / (now_s() - begun);
}

double copy_mb_s() {
    std::vector<char> from(kPage * kBufferPages, 1), to(kPage * kBufferPages, 2);
    const double begun = now_s();
    for (size_t page = 0; page < kBufferPages; page++)
        std::memcpy(to.data() + page * kPage, from.data() + page * kPage, kPage);
    return static_cast<double>(to.size()) / 1e6 / (now_s() - begun);
}

void stream(const char* address, int port) {
    sockaddr_in peer{};
    peer.sin_family = AF_INET;
    peer.sin_port = htons(static_cast<uint16_t>(port));
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, address, &peer.sin_addr) != 1 ||
        connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof peer) != 0) {
        std::perror("guest_speed");
        std::exit(1);
    }
    const std::vector<char> content(256 << 10, 3);
    for (const double begun = now_s(); now_s() - begun < kStreamSeconds;)
        if (write(fd, content.data(), content.size()) < 0) break;
    close(fd);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: guest_speed ADDRESS PORT\n");
        return 2;
    }
    const double instructions = instructions_per_s();
    const double copies = copy_mb_s();
    stream(argv[1], std::atoi(argv[2]));
    std::printf("{\"instructions_per_s\": %.0f, \"copy_mb_s\": %.0f}\n", instructions, copies);
    return 0;
}
