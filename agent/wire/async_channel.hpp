// SPDX-License-Identifier: Apache-2.0
// The same frames over an Asio socket, as coroutines.  Thread: that of the socket's io_context.
//
// Callers name every argument of a co_await that has a destructor: g++ 12 destroys some temporaries of such
// an expression twice.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <vector>

#include "agent/base/fd.hpp"
#include "agent/base/result.hpp"
#include "agent/wire/frame.hpp"

namespace smig {

class AsyncChannel {
public:
    using Socket = boost::asio::ip::tcp::socket;

    AsyncChannel(Socket socket, std::size_t max_payload);

    // The frame is handed to the kernel when it returns.  The bytes must live until then.  Errors as
    // Channel::send.
    boost::asio::awaitable<Result<void>> send(smig_wire_type type, ByteView payload,
                                              std::int64_t deadline_ms);
    // Errors as Channel::receive, but a passed deadline ends the connection (peer_lost).
    boost::asio::awaitable<Result<Frame>> receive(std::int64_t deadline_ms);

    // Says that no more will be sent, and throws away what comes until the peer has done the same.  Without
    // it unread bytes would turn the last words into a reset.
    boost::asio::awaitable<void> drain(std::int64_t deadline_ms);

    [[nodiscard]] Socket& socket() { return socket_; }
    // Takes the connection out of Asio, with where its frames stand.
    [[nodiscard]] Fd release_fd();
    [[nodiscard]] FrameWriter writer() const { return writer_; }
    [[nodiscard]] std::uint32_t next_received_sequence() const {
        return reader_.next_sequence() + (taken_ ? 1u : 0u);
    }
    void close();

private:
    Socket socket_;
    FrameWriter writer_;
    FrameReader reader_;
    bool taken_ = false;
};

}  // namespace smig
