// SPDX-License-Identifier: Apache-2.0
// pinger ADDRESS PORT TRACE: one UDP datagram every millisecond, whatever comes back (open loop).
//
// Ends when stdin ends.  TRACE gets one line an answer: when it arrived, when its question left, its number.
// stdout gets one JSON line: counts, the longest time between two answers, and how late the pinger itself
// was.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "monotonic.hpp"

namespace {

struct Ping {
    std::uint64_t number;
    std::int64_t sent_ns;
};

struct Answer {
    std::int64_t arrived_ns;
    Ping ping;
};

std::atomic<bool> ending{false};
std::atomic<std::uint64_t> sent{0};
std::atomic<std::int64_t> latest_ns{0};  // how late a datagram left, at worst

void send_all(int fd) {
    std::int64_t due = lab::now_ns();
    for (std::uint64_t number = 0; !ending; ++number, due += lab::kMillisecond) {
        lab::sleep_until(due);
        const Ping ping{number, lab::now_ns()};
        latest_ns = std::max(latest_ns.load(), ping.sent_ns - due);
        if (send(fd, &ping, sizeof ping, MSG_DONTWAIT) == sizeof ping) ++sent;
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: pinger ADDRESS PORT TRACE\n");
        return 2;
    }
    sockaddr_in peer{};
    peer.sin_family = AF_INET;
    peer.sin_port = htons(static_cast<std::uint16_t>(std::atoi(argv[2])));
    const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1 || fd < 0 ||
        connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof peer) != 0) {
        std::perror("pinger");
        return 1;
    }
    const sched_param priority{10};
    sched_setscheduler(0, SCHED_FIFO, &priority);  // best effort; the lateness tells

    std::vector<Answer> answers;
    answers.reserve(1 << 20);
    std::thread sender(send_all, fd);
    pollfd wait[] = {{fd, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    while (true) {
        poll(wait, 2, -1);
        if (wait[1].revents != 0) {
            char byte;
            if (read(STDIN_FILENO, &byte, 1) <= 0) break;
        }
        Ping ping{};
        while (recv(fd, &ping, sizeof ping, MSG_DONTWAIT) == sizeof ping)
            answers.push_back({lab::now_ns(), ping});
    }
    ending = true;
    sender.join();

    std::FILE* trace = std::fopen(argv[3], "w");
    if (trace == nullptr) return 1;
    std::fprintf(trace, "arrived_ns,sent_ns,number\n");
    std::int64_t longest = 0, from = 0;
    for (std::size_t index = 0; index < answers.size(); ++index) {
        const Answer& answer = answers[index];
        std::fprintf(trace, "%lld,%lld,%llu\n", static_cast<long long>(answer.arrived_ns),
                     static_cast<long long>(answer.ping.sent_ns),
                     static_cast<unsigned long long>(answer.ping.number));
        if (index == 0) continue;
        const std::int64_t gap = answer.arrived_ns - answers[index - 1].arrived_ns;
        if (gap > longest) {
            longest = gap;
            from = answers[index - 1].arrived_ns;
        }
    }
    std::fclose(trace);
    const std::int64_t until = from + longest;
    std::printf(
        "{\"sent\": %llu, \"answers\": %zu, \"longest_gap_ms\": %.3f, \"gap_start_ns\": %lld, "
        "\"gap_end_ns\": %lld, \"own_lateness_ms\": %.3f}\n",
        static_cast<unsigned long long>(sent.load()), answers.size(), static_cast<double>(longest) / 1e6,
        static_cast<long long>(from), static_cast<long long>(until),
        static_cast<double>(latest_ns.load()) / 1e6);
    return 0;
}
