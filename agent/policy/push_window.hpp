// SPDX-License-Identifier: Apache-2.0
// How much of what is pushed may be on its way: about one bandwidth-delay product, so that an answer to a
// fault does not stand behind it in a queue, and the link is never idle.  Pure: the time is handed in.
//
// Both factors come from the acknowledgements: the shortest time from sending a frame to hearing that it was
// taken, and the bytes taken a second.  A window that is too small measures its own rate; it grows by the
// gain until time begins to be spent in queues, and there it stays.  At the other end pages are installed by
// a process that has to be woken up: for that time as well there is something on its way.  Where faults take
// turns with what is pushed the rate that is measured falls, and the window with it, and the rate with that:
// so at least half of what the link was seen to take is believed.
#pragma once

#include <algorithm>
#include <cstdint>

namespace smig {

class PushWindow {
public:
    // `rtt_ns` and `bytes_per_s` as far as they are known before; 0: not.
    PushWindow(std::uint64_t rtt_ns, double bytes_per_s);

    // What the link was seen to take before.
    void expect(double bytes_per_s) {
        bytes_per_s_ = bytes_per_s;
        seen_bytes_per_s_ = bytes_per_s;
        set_bytes();
    }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
    // A frame of so many bytes was taken, so long after it was sent.
    void taken(std::uint64_t bytes, std::uint64_t after_ns, std::uint64_t now_ns);
    [[nodiscard]] std::uint64_t shortest_ns() const { return shortest_ns_; }
    [[nodiscard]] double bytes_per_s() const { return bytes_per_s_; }

    static constexpr std::uint64_t kLeast = 96 << 10;
    static constexpr std::uint64_t kMost = 4 << 20;

private:
    void set_bytes();

    std::uint64_t shortest_ns_;
    double bytes_per_s_;
    double seen_bytes_per_s_ = 0;  // before
    std::uint64_t bytes_ = kLeast;
    std::uint64_t since_ns_ = 0;  // of the interval that is measured
    std::uint64_t in_interval_ = 0;
};

}  // namespace smig
