// SPDX-License-Identifier: Apache-2.0
// clocks PORT: watches the guest's clocks and timers on every CPU and reports them as JSON lines.
//
//   never back   MONOTONIC, BOOTTIME and REALTIME, compared across CPUs under one lock
//   steps        the longest time MONOTONIC advanced between two looks 1 ms apart (the blackout, in a move)
//   once         one-shot timerfds, due all over the run, fire exactly once and not early; a periodic
//                one counts every period
// SIGUSR1 makes it report, SIGTERM report and end.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "monotonic.hpp"

namespace {

volatile std::sig_atomic_t ending = 0, reporting = 0;

struct Watch {
    clockid_t clock;
    std::int64_t last = 0;
    std::int64_t longest_step = 0;
    std::int64_t back = 0;  // times it was seen to go back
};

std::mutex lock;
Watch watches[] = {{CLOCK_MONOTONIC}, {CLOCK_BOOTTIME}, {CLOCK_REALTIME}};

void look() {
    const std::lock_guard<std::mutex> hold(lock);
    for (Watch& watch : watches) {
        const std::int64_t now = lab::clock_ns(watch.clock);
        if (watch.last != 0) {
            if (now < watch.last) ++watch.back;
            watch.longest_step = std::max(watch.longest_step, now - watch.last);
        }
        watch.last = now;
    }
}

void watch_on(unsigned cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    sched_setaffinity(0, sizeof only, &only);
    while (ending == 0) {
        look();
        lab::sleep_until(lab::now_ns() + lab::kMillisecond);
    }
}

struct Timer {
    int fd;
    std::int64_t due;
    std::uint64_t fired = 0;
};

constexpr std::int64_t kSpacing = 50 * lab::kMillisecond;
constexpr int kOneShots = 800;  // 40 s of them; fewer than the descriptors a process may have
constexpr std::int64_t kPeriod = 100 * lab::kMillisecond;

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    const int port = open(argv[1], O_RDWR | O_CLOEXEC);
    std::signal(SIGUSR1, [](int) { reporting = 1; });
    std::signal(SIGTERM, [](int) { ending = 1; });
    std::vector<std::thread> threads;
    for (unsigned cpu = 0; cpu < std::thread::hardware_concurrency(); ++cpu)
        threads.emplace_back(watch_on, cpu);

    const std::int64_t start = lab::now_ns();
    std::vector<Timer> timers;
    for (int index = 1; index <= kOneShots; ++index) {
        const std::int64_t due = start + index * kSpacing;
        const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        const itimerspec when{{0, 0}, lab::to_timespec(due)};
        timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, nullptr);
        timers.push_back({fd, due});
    }
    const int periodic = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    const itimerspec every{lab::to_timespec(kPeriod), lab::to_timespec(start + kPeriod)};
    timerfd_settime(periodic, TFD_TIMER_ABSTIME, &every, nullptr);

    std::uint64_t early = 0, repeated = 0, periods = 0;
    const auto read_timers = [&] {
        std::uint64_t count = 0;
        for (Timer& timer : timers) {
            if (read(timer.fd, &count, sizeof count) != sizeof count) continue;
            if (lab::now_ns() < timer.due) ++early;
            if (timer.fired + count > 1) ++repeated;
            timer.fired += count;
        }
        if (read(periodic, &count, sizeof count) == sizeof count) periods += count;
    };
    const auto report = [&] {
        const std::lock_guard<std::mutex> hold(lock);
        const std::int64_t now = lab::now_ns();
        std::uint64_t missed = 0, fired = 0;
        for (const Timer& timer : timers) {
            if (timer.fired != 0) ++fired;
            if (timer.fired == 0 && timer.due + kSpacing < now) ++missed;
        }
        const auto expected = static_cast<std::uint64_t>((now - start) / kPeriod);
        char line[512];
        const int length = std::snprintf(
            line, sizeof line,
            "{\"program\": \"clocks\", \"ran_ms\": %lld, \"realtime_ns\": %lld, \"back\": [%lld, %lld, "
            "%lld], "
            "\"longest_step_ms\": [%.3f, %.3f, %.3f], \"fired\": %llu, \"early\": %llu, \"repeated\": %llu, "
            "\"missed\": %llu, \"periods\": %llu, \"periods_expected\": %llu}\n",
            static_cast<long long>((now - start) / lab::kMillisecond),
            static_cast<long long>(lab::clock_ns(CLOCK_REALTIME)), static_cast<long long>(watches[0].back),
            static_cast<long long>(watches[1].back), static_cast<long long>(watches[2].back),
            static_cast<double>(watches[0].longest_step) / 1e6,
            static_cast<double>(watches[1].longest_step) / 1e6,
            static_cast<double>(watches[2].longest_step) / 1e6, static_cast<unsigned long long>(fired),
            static_cast<unsigned long long>(early), static_cast<unsigned long long>(repeated),
            static_cast<unsigned long long>(missed), static_cast<unsigned long long>(periods),
            static_cast<unsigned long long>(expected));
        return write(port, line, static_cast<std::size_t>(length)) == length;
    };
    while (ending == 0) {
        read_timers();
        if (reporting != 0) {
            reporting = 0;
            report();
        }
        lab::sleep_until(lab::now_ns() + 20 * lab::kMillisecond);
    }
    for (std::thread& thread : threads) thread.join();
    read_timers();
    return report() ? 0 : 1;
}
