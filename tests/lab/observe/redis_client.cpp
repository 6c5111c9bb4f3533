// SPDX-License-Identifier: Apache-2.0
// redis_client ADDRESS PORT KEYS VALUE_BYTES PACE_US TRACE: one TCP connection that knows what Redis must
// answer.
//
// Fills KEYS keys, then one question at a time, at most one each PACE_US: two reads to one write, of random
// keys.  Every value names its key and its generation, so an answer is right, old (a lost write) or wrong.
// Commands on stdin, each answered by one JSON line on stdout:
//   mark     forget the longest gap so far
//   status   counts and the longest time between two answers since the mark
//   finish   read back every key; then exit
// The first line out says that the filling is done.  TRACE gets the time of every answer from then on.  A
// lost connection ends the program with status 1.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "monotonic.hpp"
#include "random_fill.hpp"

namespace {

constexpr std::size_t kPipeline = 32;  // questions in flight while filling and reading back

[[noreturn]] void lost(const char* what) {
    std::printf("{\"event\": \"lost\", \"mono_ns\": %lld, \"why\": \"%s: %s\"}\n",
                static_cast<long long>(lab::now_ns()), what, std::strerror(errno));
    std::fflush(stdout);
    std::exit(1);
}

class Connection {
public:
    Connection(const char* address, int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in peer{};
        peer.sin_family = AF_INET;
        peer.sin_port = htons(static_cast<std::uint16_t>(port));
        const int on = 1;
        if (fd_ < 0 || inet_pton(AF_INET, address, &peer.sin_addr) != 1 ||
            connect(fd_, reinterpret_cast<sockaddr*>(&peer), sizeof peer) != 0)
            lost("connect");
        setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }

    int fd() const { return fd_; }

    void put(std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent <= 0) lost("send");
            bytes.remove_prefix(static_cast<std::size_t>(sent));
        }
    }

    // Takes what has arrived into the buffer; blocks for at least one byte.
    void take() {
        std::array<char, 65536> chunk{};
        const ssize_t got = recv(fd_, chunk.data(), chunk.size(), 0);
        if (got == 0) errno = ECONNRESET;
        if (got <= 0) lost("receive");
        in_.append(chunk.data(), static_cast<std::size_t>(got));
    }

    // One whole reply if it has arrived: its kind and, for a bulk string, its bytes.
    bool reply(char& kind, std::string& text) {
        const std::size_t end = in_.find("\r\n");
        if (end == std::string::npos) return false;
        kind = in_[0];
        if (kind != '$') {
            text = in_.substr(1, end - 1);
            in_.erase(0, end + 2);
            return true;
        }
        const long length = std::atol(in_.c_str() + 1);
        if (length < 0) {
            text.clear();
            in_.erase(0, end + 2);
            return true;
        }
        const auto bytes = static_cast<std::size_t>(length);
        if (in_.size() < end + 2 + bytes + 2) return false;
        text = in_.substr(end + 2, bytes);
        in_.erase(0, end + 2 + bytes + 2);
        return true;
    }

private:
    int fd_;
    std::string in_;
};

class Keys {
public:
    Keys(std::size_t count, std::size_t bytes) : generation_(count, 0), words_(bytes / 8) {}

    std::size_t size() const { return generation_.size(); }

    std::string set(std::size_t key, std::uint64_t generation) const {
        const std::string value = content(key, generation);
        std::string question = "*3\r\n$3\r\nSET\r\n" + name(key);
        question.append("$").append(std::to_string(value.size())).append("\r\n").append(value).append("\r\n");
        return question;
    }
    static std::string get(std::size_t key) { return "*2\r\n$3\r\nGET\r\n" + name(key); }

    std::uint64_t next(std::size_t key) const { return generation_[key] + 1; }
    void acknowledged(std::size_t key, std::uint64_t generation) { generation_[key] = generation; }

    void check(std::size_t key, const std::string& value) {
        ++checked_;
        if (value == content(key, generation_[key])) return;
        std::uint64_t head[2] = {0, 0};
        if (value.size() >= sizeof head) std::memcpy(head, value.data(), sizeof head);
        const bool old = head[0] == key && head[1] < generation_[key] && value == content(key, head[1]);
        ++(old ? lost_ : wrong_);
    }

    std::uint64_t checked() const { return checked_; }
    std::uint64_t wrong() const { return wrong_; }
    std::uint64_t lost() const { return lost_; }
    void count_wrong() { ++wrong_; }

private:
    static std::string name(std::size_t key) {
        char text[32];
        std::snprintf(text, sizeof text, "$12\r\nkey:%08zu\r\n", key);
        return text;
    }
    std::string content(std::size_t key, std::uint64_t generation) const {
        lab::Words words(key * 0x10001 + generation);
        std::string value(words_ * 8, '\0');
        auto* at = value.data();
        for (std::size_t word = 0; word < words_; ++word) {
            const std::uint64_t next = word == 0 ? key : word == 1 ? generation : words.next();
            std::memcpy(at + word * 8, &next, 8);
        }
        return value;
    }

    std::vector<std::uint64_t> generation_;  // last acknowledged
    std::size_t words_;
    std::uint64_t checked_ = 0, wrong_ = 0, lost_ = 0;
};

// Asks about every key in order, kPipeline at a time.
template <class Ask, class Answered>
void each_key(Connection& redis, const Keys& keys, Ask ask, Answered answered) {
    std::size_t asked = 0;
    char kind = 0;
    std::string text;
    for (std::size_t done = 0; done < keys.size();) {
        std::string batch;
        for (; asked < keys.size() && asked - done < kPipeline; ++asked) batch += ask(asked);
        redis.put(batch);
        redis.take();
        for (; done < asked && redis.reply(kind, text); ++done) answered(done, kind, text);
    }
}

struct Gap {
    std::int64_t last_answer = lab::now_ns(), longest = 0, from = 0;
    std::uint64_t answers = 0;

    void answer() {
        const std::int64_t now = lab::now_ns();
        if (now - last_answer > longest) {
            longest = now - last_answer;
            from = last_answer;
        }
        last_answer = now;
        ++answers;
    }
};

void tell(const char* event, const Keys& keys, const Gap& gap, std::uint64_t writes) {
    const std::int64_t until = gap.from + gap.longest;
    std::printf(
        "{\"event\": \"%s\", \"mono_ns\": %lld, \"keys\": %zu, \"answers\": %llu, \"writes\": %llu, "
        "\"checked\": %llu, \"wrong\": %llu, \"lost\": %llu, \"longest_gap_ms\": %.3f, "
        "\"gap_start_ns\": %lld, \"gap_end_ns\": %lld, \"last_answer_ns\": %lld}\n",
        event, static_cast<long long>(lab::now_ns()), keys.size(),
        static_cast<unsigned long long>(gap.answers), static_cast<unsigned long long>(writes),
        static_cast<unsigned long long>(keys.checked()), static_cast<unsigned long long>(keys.wrong()),
        static_cast<unsigned long long>(keys.lost()), static_cast<double>(gap.longest) / 1e6,
        static_cast<long long>(gap.from), static_cast<long long>(until),
        static_cast<long long>(gap.last_answer));
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 7) {
        std::fprintf(stderr, "usage: redis_client ADDRESS PORT KEYS VALUE_BYTES PACE_US TRACE\n");
        return 2;
    }
    Connection redis(argv[1], std::atoi(argv[2]));
    Keys keys(std::strtoull(argv[3], nullptr, 10), std::strtoull(argv[4], nullptr, 10));
    const std::int64_t pace = std::atoll(argv[5]) * 1000;
    std::FILE* trace = std::fopen(argv[6], "w");
    if (trace == nullptr) {
        std::perror(argv[6]);
        return 1;
    }
    std::fprintf(trace, "mono_ns\n");

    each_key(
        redis, keys, [&](std::size_t key) { return keys.set(key, 1); },
        [&](std::size_t key, char kind, const std::string& text) {
            if (kind == '+' && text == "OK")
                keys.acknowledged(key, 1);
            else
                keys.count_wrong();
        });
    const sched_param priority{10};
    sched_setscheduler(0, SCHED_FIFO, &priority);  // best effort
    Gap gap;
    std::uint64_t writes = 0;
    tell("filled", keys, gap, writes);

    lab::Words random(static_cast<std::uint64_t>(lab::now_ns()));
    std::string command, text;
    char kind = 0;
    bool finishing = false, waiting = false, writing = false;
    std::size_t key = 0;
    std::int64_t next_question = lab::now_ns();
    while (!finishing || waiting) {
        if (!waiting && lab::now_ns() >= next_question) {
            key = random.next() % keys.size();
            writing = random.next() % 3 == 0;
            redis.put(writing ? keys.set(key, keys.next(key)) : Keys::get(key));
            waiting = true;
            next_question = lab::now_ns() + pace;
        }
        pollfd ready[] = {{redis.fd(), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
        const timespec until = lab::to_timespec(
            waiting ? lab::kSecond : std::max<std::int64_t>(next_question - lab::now_ns(), 0));
        ppoll(ready, 2, &until, nullptr);
        if (ready[0].revents != 0) {
            redis.take();
            if (waiting && redis.reply(kind, text)) {
                waiting = false;
                gap.answer();
                std::fprintf(trace, "%lld\n", static_cast<long long>(gap.last_answer));
                if (!writing) {
                    keys.check(key, text);
                } else if (kind == '+' && text == "OK") {
                    keys.acknowledged(key, keys.next(key));
                    ++writes;
                } else {
                    keys.count_wrong();
                }
            }
        }
        if (ready[1].revents != 0) {
            char byte = 0;
            if (read(STDIN_FILENO, &byte, 1) <= 0) return 1;
            if (byte != '\n') {
                command += byte;
                continue;
            }
            if (command == "mark") {
                const std::uint64_t answers = gap.answers;
                gap = Gap{};
                gap.answers = answers;
            }
            finishing = command == "finish";
            if (!finishing) tell(command.c_str(), keys, gap, writes);
            command.clear();
        }
    }
    each_key(
        redis, keys, [](std::size_t index) { return Keys::get(index); },
        [&](std::size_t index, char, const std::string& value) { keys.check(index, value); });
    std::fclose(trace);
    tell("finished", keys, gap, writes);
    return 0;
}
