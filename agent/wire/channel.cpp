// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/channel.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>

#include "agent/base/check.hpp"
#include "agent/base/clock.hpp"

namespace smig {

namespace {

// Room for two frames of pages: one is read out of memory while the other is on its way.
constexpr int kSocketBuffer = 2 << 20;
constexpr std::size_t kMostPieces = 8;

void set_option(int fd, int level, int name, int value) {
    ::setsockopt(fd, level, name, &value, sizeof(value));
}

}  // namespace

void tune_socket(int fd) {
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, kSocketBuffer);
    set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, kSocketBuffer);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 2);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 6);
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 8000);
}

Channel::Channel(Fd fd, FrameWriter writer, FrameReader reader, Pulse pulse)
    : fd_(std::move(fd)), writer_(writer), reader_(std::move(reader)), pulse_(std::move(pulse)) {
    const int flags = ::fcntl(fd_.get(), F_GETFL);
    SMIG_CHECK(flags >= 0 && ::fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK) == 0);
}

bool Channel::wait(short events, std::int64_t deadline_ms) {
    for (;;) {
        if (pulse_) pulse_();
        const std::int64_t left = deadline_ms - mono_ms();
        if (left <= 0) return false;
        pollfd entry{fd_.get(), events, 0};
        if (::poll(&entry, 1, static_cast<int>(std::min(left, kPulseMs))) > 0) return true;
    }
}

Result<std::uint64_t> Channel::send(smig_wire_type type, std::span<const ByteView> pieces,
                                    std::int64_t stall_ms) {
    if (!fd_) return Error{Remedy::peer_lost, "the connection is closed"};
    SMIG_CHECK(pieces.size() < kMostPieces);
    const SealedHeader header = writer_.seal(type, pieces);
    std::array<iovec, kMostPieces> vectors{};
    std::size_t count = 0;
    const auto add = [&](ByteView piece) {
        if (!piece.empty()) vectors[count++] = {const_cast<std::byte*>(piece.data()), piece.size()};
    };
    add(header.bytes);
    for (const ByteView piece : pieces) add(piece);

    std::size_t first = 0;
    std::int64_t deadline = mono_ms() + stall_ms;
    while (first < count) {
        msghdr message{};
        message.msg_iov = &vectors[first];
        message.msg_iovlen = count - first;
        const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN)
                return errno_error(Remedy::peer_lost,
                                   std::string("sending ") + type_name(static_cast<std::uint16_t>(type)));
            if (!wait(POLLOUT, deadline))
                return Error{Remedy::peer_lost,
                             std::string("sending ") + type_name(static_cast<std::uint16_t>(type)) +
                                 ": the peer took nothing for " + std::to_string(stall_ms) + " ms"};
            continue;
        }
        deadline = mono_ms() + stall_ms;
        auto left = static_cast<std::size_t>(sent);
        while (first < count && left >= vectors[first].iov_len) left -= vectors[first++].iov_len;
        if (left > 0) {
            vectors[first].iov_base = static_cast<std::byte*>(vectors[first].iov_base) + left;
            vectors[first].iov_len -= left;
        }
    }
    if (pulse_) pulse_();
    return header.checksum;
}

Result<Frame> Channel::receive(std::int64_t deadline_ms) {
    if (!fd_) return Error{Remedy::peer_lost, "the connection is closed"};
    if (taken_) {
        reader_.next();
        taken_ = false;
    }
    for (;;) {
        const std::span<std::byte> place = reader_.wanted();
        const ssize_t got = ::recv(fd_.get(), place.data(), place.size(), MSG_DONTWAIT);
        if (got < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return errno_error(Remedy::peer_lost, "receiving");
            if (!wait(POLLIN, deadline_ms)) return Error{Remedy::retry, "no answer in time"};
            continue;
        }
        if (got == 0) {
            ended_in_order_ = reader_.between_frames();
            return Error{Remedy::peer_lost, "the peer closed the connection"};
        }
        auto complete = reader_.took(static_cast<std::size_t>(got));
        if (!complete) return complete.error();
        if (complete.value()) {
            taken_ = true;
            return reader_.frame();
        }
    }
}

}  // namespace smig
