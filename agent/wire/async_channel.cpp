// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/async_channel.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <memory>

#include "agent/base/clock.hpp"

namespace smig {

namespace asio = boost::asio;

namespace {

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

// Cancels the socket's operations when the deadline passes.
class Deadline {
public:
    Deadline(AsyncChannel::Socket& socket, std::int64_t deadline_ms)
        : timer_(socket.get_executor()), passed_(std::make_shared<bool>(false)) {
        if (deadline_ms >= kNever) return;
        timer_.expires_after(std::chrono::milliseconds(std::max<std::int64_t>(0, deadline_ms - mono_ms())));
        timer_.async_wait([&socket, passed = passed_](boost::system::error_code error) {
            // Cancelled, or expired and then abandoned: this handler alone still holds `passed`, the socket
            // may be gone.
            if (error || passed.use_count() < 2) return;
            *passed = true;
            socket.cancel(error);
        });
    }
    [[nodiscard]] bool passed() const { return *passed_; }

private:
    asio::steady_timer timer_;
    std::shared_ptr<bool> passed_;
};

Error lost(const char* what, const boost::system::error_code& error, const Deadline& deadline) {
    if (deadline.passed()) return {Remedy::peer_lost, std::string(what) + ": no answer in time"};
    if (error == asio::error::eof) return {Remedy::peer_lost, "the peer closed the connection"};
    return {Remedy::peer_lost, std::string(what) + ": " + error.message()};
}

}  // namespace

AsyncChannel::AsyncChannel(Socket socket, std::size_t max_payload)
    : socket_(std::move(socket)), reader_(max_payload) {}

asio::awaitable<Result<void>> AsyncChannel::send(smig_wire_type type, ByteView payload,
                                                 std::int64_t deadline_ms) {
    const SealedHeader header = writer_.seal(type, std::span(&payload, 1));
    const std::array<asio::const_buffer, 2> buffers{asio::buffer(header.bytes.data(), header.bytes.size()),
                                                    asio::buffer(payload.data(), payload.size())};
    Deadline deadline(socket_, deadline_ms);
    const auto [error, count] = co_await asio::async_write(socket_, buffers, kTuple);
    if (error) co_return lost(type_name(static_cast<std::uint16_t>(type)), error, deadline);
    co_return Result<void>{};
}

asio::awaitable<Result<Frame>> AsyncChannel::receive(std::int64_t deadline_ms) {
    if (taken_) {
        reader_.next();
        taken_ = false;
    }
    Deadline deadline(socket_, deadline_ms);
    for (;;) {
        const std::span<std::byte> place = reader_.wanted();
        const auto [error, count] =
            co_await socket_.async_read_some(asio::buffer(place.data(), place.size()), kTuple);
        if (error) co_return lost("receiving", error, deadline);
        auto complete = reader_.took(count);
        if (!complete) co_return complete.error();
        if (complete.value()) {
            taken_ = true;
            co_return reader_.frame();
        }
    }
}

asio::awaitable<void> AsyncChannel::drain(std::int64_t deadline_ms) {
    boost::system::error_code ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
    std::array<std::byte, 16384> unread{};
    Deadline deadline(socket_, deadline_ms);
    for (;;) {
        const auto [error, count] =
            co_await socket_.async_read_some(asio::buffer(unread.data(), unread.size()), kTuple);
        if (error || count == 0) co_return;
    }
}

Fd AsyncChannel::release_fd() {
    boost::system::error_code error;
    const int fd = socket_.release(error);
    return error ? Fd{} : Fd{fd};
}

void AsyncChannel::close() {
    boost::system::error_code ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
    socket_.close(ignored);
}

}  // namespace smig
