// SPDX-License-Identifier: Apache-2.0
// Where the clone calls the source: a listener and a few callers, each with its own small frames.  A caller
// that is silent, slow or wrong is dropped; the oldest gives way to a new one.  Thread: one.
#pragma once

#include <poll.h>

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "agent/base/fd.hpp"
#include "agent/source/machine.hpp"
#include "agent/wire/channel.hpp"

namespace smig {

class ControlPort {
public:
    ControlPort(Fd listener, Pulse pulse);

    // What to poll for.
    void add_to(std::vector<pollfd>& entries) const;
    // Accepts and receives whatever is there, without waiting.  Alive, Released, OwedCalled and Drained only.
    [[nodiscard]] std::vector<SourceEvent> service();
    // Best effort; a caller that does not take it is dropped.
    void answer(int caller, smig_wire_type type, ByteView payload);
    // Its connection, which is this port's no more; none if it was dropped.
    [[nodiscard]] std::optional<Channel> take(int caller);
    // Closes in order: the caller reads the end of the stream.
    void end(int caller);

private:
    struct Caller {
        int number = 0;
        Channel channel;
        std::int64_t silent_by_ms = 0;
    };
    static constexpr std::size_t kMostCallers = 6;

    void accept_all();
    // False: drop it.
    bool receive(Caller& caller, std::vector<SourceEvent>& events);
    Caller* find(int number);

    Fd listener_;
    Pulse pulse_;
    std::vector<Caller> callers_;  // oldest first
    int next_number_ = 1;
};

}  // namespace smig
