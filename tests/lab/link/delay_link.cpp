// SPDX-License-Identifier: Apache-2.0
// delay_link FD FD DELAY_US: joins two taps by a link that takes time.
//
// Every frame leaves DELAY_US after it came, in order, whole as the guest made it (with its offload header).
// The queue of a direction is bounded: while it is full nothing is read, and the tap's own queue fills.
// Ends when a tap is gone.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <vector>

#include "monotonic.hpp"

namespace {

constexpr std::size_t kMaxFrame = 68 << 10;    // 64 KiB that a guest hands over at once, and headers
constexpr std::size_t kQueueBytes = 32 << 20;  // 25 ms of 10 Gbit/s
constexpr int kBatch = 64;                     // frames a turn, so that the other direction has its turns

// From one tap to the other.
class Direction {
public:
    Direction(int from, int to, std::int64_t delay_ns) : from_(from), to_(to), delay_ns_(delay_ns) {}

    // Also chooses where the next frame will lie: no frame is split at the ring's end.
    bool room() {
        if (frames_.empty()) {
            tail_ = 0;
            return true;
        }
        const std::size_t first = frames_.front().at;
        if (tail_ < first) return first - tail_ > kMaxFrame;
        if (ring_.size() - tail_ >= kMaxFrame) return true;
        if (first <= kMaxFrame) return false;
        tail_ = 0;
        return true;
    }

    // What the tap has; false: the tap is gone.
    bool take() {
        for (int turn = 0; turn < kBatch && room(); ++turn) {
            const ssize_t got = read(from_, ring_.data() + tail_, kMaxFrame);
            if (got < 0) return errno == EAGAIN || errno == EINTR || errno == EIO;
            const auto length = static_cast<std::size_t>(got);
            frames_.push_back({lab::now_ns() + delay_ns_, tail_, length});
            tail_ += length;
        }
        return true;
    }

    // What is due; the time until the next one is, or -1.
    std::int64_t give() {
        while (!frames_.empty()) {
            const Frame& frame = frames_.front();
            const std::int64_t wait = frame.due_ns - lab::now_ns();
            if (wait > 0) return wait;
            // a frame that the other side does not take now is lost, as on a wire
            [[maybe_unused]] const ssize_t put = write(to_, ring_.data() + frame.at, frame.length);
            frames_.pop_front();
        }
        return -1;
    }

    pollfd wanted() { return {from_, static_cast<short>(room() ? POLLIN : 0), 0}; }

private:
    struct Frame {
        std::int64_t due_ns;
        std::size_t at, length;
    };

    int from_, to_;
    std::int64_t delay_ns_;
    std::vector<std::byte> ring_ = std::vector<std::byte>(kQueueBytes);
    std::size_t tail_ = 0;  // where the next frame goes
    std::deque<Frame> frames_;
};

void get_ready(int tap) {
    constexpr unsigned kOffloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    if (ioctl(tap, TUNSETOFFLOAD, kOffloads) != 0 || fcntl(tap, F_SETFL, O_NONBLOCK) != 0) {
        std::perror("delay_link: not a tap");
        std::exit(1);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: delay_link FD FD DELAY_US\n");
        return 2;
    }
    const int one = std::atoi(argv[1]), other = std::atoi(argv[2]);
    const std::int64_t delay_ns = std::atoll(argv[3]) * 1000;
    get_ready(one);
    get_ready(other);
    prctl(PR_SET_TIMERSLACK, 1);
    const sched_param priority{10};
    sched_setscheduler(0, SCHED_FIFO, &priority);  // best effort

    Direction there(one, other, delay_ns), back(other, one, delay_ns);
    for (;;) {
        const std::int64_t waits[] = {there.give(), back.give()};
        std::int64_t wait = -1;
        for (const std::int64_t each : waits)
            if (each >= 0) wait = wait < 0 ? each : std::min(wait, each);
        const timespec timeout{wait / lab::kSecond, wait % lab::kSecond};
        pollfd polled[] = {there.wanted(), back.wanted()};
        if (ppoll(polled, 2, wait < 0 ? nullptr : &timeout, nullptr) < 0 && errno != EINTR) return 1;
        if ((polled[0].revents | polled[1].revents) & (POLLERR | POLLNVAL)) return 1;
        if ((polled[0].revents & POLLIN) != 0 && !there.take()) return 1;
        if ((polled[1].revents & POLLIN) != 0 && !back.take()) return 1;
    }
}
