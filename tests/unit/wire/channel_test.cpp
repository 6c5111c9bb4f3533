// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/channel.hpp"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "agent/base/clock.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/connect.hpp"

using namespace smig;

namespace {

struct Pair {
    Fd left;
    Fd right;
};

Pair sockets() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
}

Channel channel(Fd fd) {
    return {std::move(fd), FrameWriter{}, FrameReader(SMIG_WIRE_MAX_PAYLOAD), {}};
}

constexpr std::int64_t kMs = 2000;

}  // namespace

TEST_CASE("a frame goes through a connection") {
    Pair pair = sockets();
    Channel left = channel(std::move(pair.left));
    Channel right = channel(std::move(pair.right));
    const Bytes payload = encode(smig_wire_clock{1, 2});
    const auto sent = left.send(SMIG_WIRE_CLOCK, {payload}, kMs);
    REQUIRE(sent.ok());
    const auto frame = right.receive(mono_ms() + kMs);
    REQUIRE(frame.ok());
    CHECK(frame.value().checksum == sent.value());
    CHECK(decode_clock(frame.value().payload).value().target_mono_ns == 2);
}

TEST_CASE("a frame larger than every buffer goes through while the peer reads") {
    Pair pair = sockets();
    Channel left = channel(std::move(pair.left));
    Channel right = channel(std::move(pair.right));
    Bytes payload(8 + SMIG_WIRE_BITMAP_CHUNK, std::byte{3});
    put_le<std::uint64_t>(payload.data(), 0);
    std::thread reader([&] {
        const auto frame = right.receive(mono_ms() + kMs);
        CHECK(frame.ok());
        CHECK(frame.value().payload.size() == payload.size());
    });
    const ByteView view(payload);
    CHECK(left.send(SMIG_WIRE_BITMAP, {view.first(100), view.subspan(100)}, kMs).ok());
    reader.join();
}

TEST_CASE("a peer that takes nothing is lost after the stall time") {
    Pair pair = sockets();
    Channel left = channel(std::move(pair.left));
    const Bytes payload(8 + SMIG_WIRE_BITMAP_CHUNK);
    const std::int64_t begun = mono_ms();
    const auto sent = left.send(SMIG_WIRE_BITMAP, {payload}, 100);
    REQUIRE_FALSE(sent.ok());
    CHECK(sent.error().remedy == Remedy::peer_lost);
    CHECK(mono_ms() - begun >= 100);
}

TEST_CASE("a deadline keeps what has arrived") {
    Pair pair = sockets();
    Channel right = channel(std::move(pair.right));
    FrameWriter writer;
    const Bytes payload = encode(smig_wire_clock{1, 2});
    const ByteView view(payload);
    const SealedHeader header = writer.seal(SMIG_WIRE_CLOCK, std::span(&view, 1));
    REQUIRE(::send(pair.left.get(), header.bytes.data(), 10, 0) == 10);
    const auto early = right.receive(mono_ms() + 20);
    REQUIRE_FALSE(early.ok());
    CHECK(early.error().remedy == Remedy::retry);
    REQUIRE(::send(pair.left.get(), header.bytes.data() + 10, 14, 0) == 14);
    REQUIRE(::send(pair.left.get(), payload.data(), payload.size(), 0) ==
            static_cast<ssize_t>(payload.size()));
    CHECK(right.receive(mono_ms() + kMs).ok());
}

TEST_CASE("an end between frames is in order, an end inside a frame is not") {
    for (const bool inside : {false, true}) {
        Pair pair = sockets();
        Channel right = channel(std::move(pair.right));
        if (inside) REQUIRE(::send(pair.left.get(), "SMIG", 4, 0) == 4);
        pair.left.reset();
        const auto frame = right.receive(mono_ms() + kMs);
        REQUIRE_FALSE(frame.ok());
        CHECK(frame.error().remedy == Remedy::peer_lost);
        CHECK(right.ended_in_order() == !inside);
    }
}

TEST_CASE("the pulse is felt while waiting") {
    Pair pair = sockets();
    int pulses = 0;
    Channel right(std::move(pair.right), FrameWriter{}, FrameReader(64), [&] { ++pulses; });
    CHECK_FALSE(right.receive(mono_ms() + 3 * kPulseMs).ok());
    CHECK(pulses >= 3);
}

TEST_CASE("an accepted connection has the large window that its listener was given") {
    SocketAddress any;
    auto* address = reinterpret_cast<sockaddr_in*>(&any.storage);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    any.length = sizeof(sockaddr_in);
    const auto listener = listen_on(any, 1);
    REQUIRE(listener.ok());
    SocketAddress there = any;
    reinterpret_cast<sockaddr_in*>(&there.storage)->sin_port = htons(local_port(listener.value().get()));
    const auto left = connect_from(any, there, kMs, {});
    REQUIRE(left.ok());
    const Fd right(::accept4(listener.value().get(), nullptr, nullptr, SOCK_CLOEXEC));
    REQUIRE(right);
    int clamp = 0;
    socklen_t length = sizeof(clamp);
    REQUIRE(::getsockopt(right.get(), IPPROTO_TCP, TCP_WINDOW_CLAMP, &clamp, &length) == 0);
    // Without CAP_NET_ADMIN the kernel limits it.
    if (::geteuid() == 0) CHECK(clamp >= 1 << 20);
}
