// SPDX-License-Identifier: Apache-2.0
// When the clone leaves unread for a moment what is pushed: somebody has just got the page that he waited
// for, and on few processors he would run again only when all that was pushed is in place.  Not if others
// wait at that moment, for their pages may be among what was pushed; who comes to wait later is answered by
// the other connection.  And never twice without a look at what was pushed in between.  Pure: the time is
// handed in.
#pragma once

#include <cstdint>

namespace smig {

class PushRest {
public:
    // A page is in place that somebody waited for.
    void served(bool others_wait, std::uint64_t now_ns) {
        if (others_wait || !looked_) return;
        until_ns_ = now_ns + kRestNs;
        looked_ = false;
    }
    // What is pushed was looked at.
    void looked() { looked_ = true; }
    // How much longer it is left unread; 0: not at all.
    [[nodiscard]] std::uint64_t left_ns(std::uint64_t now_ns) const {
        return now_ns >= until_ns_ ? 0 : until_ns_ - now_ns;
    }

    static constexpr std::uint64_t kRestNs = 1'000'000;

private:
    std::uint64_t until_ns_ = 0;
    bool looked_ = true;
};

}  // namespace smig
