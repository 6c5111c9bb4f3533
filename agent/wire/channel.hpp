// SPDX-License-Identifier: Apache-2.0
// A connection with deadlines for a process that must not use Asio: poll() and plain system calls.
//
// Allocates only when constructed.  While it waits it calls `pulse` at least every kPulseMs, so that a
// supervisor sees a living process.  Thread: one.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>

#include "agent/base/fd.hpp"
#include "agent/base/result.hpp"
#include "agent/wire/frame.hpp"

namespace smig {

inline constexpr std::int64_t kPulseMs = 200;

using Pulse = std::function<void()>;

// TCP_NODELAY, buffers for bulk, keepalive and a user time-out, so that a cut link is noticed within some
// seconds. Before connect() or listen(), from where accepted connections inherit it all: a receive buffer
// that is set later does not open the window that was chosen at the handshake, and keeps the kernel from
// opening it.  Best effort.
void tune_socket(int fd);

class Channel {
public:
    // `fd` becomes non-blocking.  `writer` and `reader` continue a connection that another edge has begun.
    Channel(Fd fd, FrameWriter writer, FrameReader reader, Pulse pulse);

    // Hands one whole frame to the kernel; returns its checksum.  Error (peer_lost): the connection failed,
    // or took not a byte for `stall_ms`; part of the frame may have gone out.
    Result<std::uint64_t> send(smig_wire_type type, std::span<const ByteView> pieces, std::int64_t stall_ms);
    Result<std::uint64_t> send(smig_wire_type type, std::initializer_list<ByteView> pieces,
                               std::int64_t stall_ms) {
        return send(type, std::span(pieces.begin(), pieces.size()), stall_ms);
    }

    // The next frame, which lives until the next call.  Error: retry (the deadline passed, what arrived is
    // kept), peer_lost, protocol.
    Result<Frame> receive(std::int64_t deadline_ms);

    // After peer_lost: the peer's kernel closed the connection in order, between frames.
    [[nodiscard]] bool ended_in_order() const { return ended_in_order_; }
    [[nodiscard]] int fd() const { return fd_.get(); }
    [[nodiscard]] Fd release_fd() { return std::move(fd_); }
    void close() { fd_.reset(); }

private:
    // True: ready; false: the deadline passed.
    bool wait(short events, std::int64_t deadline_ms);

    Fd fd_;
    FrameWriter writer_;
    FrameReader reader_;
    Pulse pulse_;
    bool taken_ = false;  // the reader's complete frame has been given out
    bool ended_in_order_ = false;
};

}  // namespace smig
