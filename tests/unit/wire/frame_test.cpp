// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/frame.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "agent/wire/codec.hpp"
#include "agent/wire/fault.hpp"

using namespace smig;

namespace {

Bytes frame_bytes(FrameWriter& writer, smig_wire_type type, ByteView payload) {
    const SealedHeader header = writer.seal(type, std::span(&payload, 1));
    Bytes out(kFrameHeaderBytes + payload.size());
    std::ranges::copy(header.bytes, out.begin());
    std::ranges::copy(payload, out.begin() + kFrameHeaderBytes);
    return out;
}

Bytes sealed(smig_wire_type type, ByteView payload) {
    FrameWriter writer;
    return frame_bytes(writer, type, payload);
}

// Feeds a stream in steps of at most `step` bytes; the last result.
Result<bool> feed(FrameReader& reader, ByteView stream, std::size_t step = 1 << 20) {
    Result<bool> result = false;
    while (!stream.empty() && !reader.complete()) {
        const auto place = reader.wanted();
        const std::size_t count = std::min({place.size(), stream.size(), step});
        std::ranges::copy(stream.first(count), place.begin());
        stream = stream.subspan(count);
        result = reader.took(count);
        if (!result) return result;
    }
    return result;
}

Bytes alive_payload() {
    smig_wire_alive alive{};
    alive.epoch[0] = 1;
    return encode(alive);
}

void check_fault(Bytes stream, WireFault fault, std::size_t max_payload = 4096) {
    FrameReader reader(max_payload);
    const auto result = feed(reader, stream);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().remedy == Remedy::protocol);
    CHECK_MESSAGE(result.error().text.starts_with(wire_fault_name(fault)), result.error().text);
}

}  // namespace

TEST_CASE("a frame arrives as it was sent, however the stream is cut") {
    const Bytes payload = alive_payload();
    for (const std::size_t step : {1u, 7u, 24u, 25u, 1000u}) {
        FrameReader reader(4096);
        const auto result = feed(reader, sealed(SMIG_WIRE_ALIVE, payload), step);
        REQUIRE(result.ok());
        REQUIRE(result.value());
        CHECK(reader.frame().type == SMIG_WIRE_ALIVE);
        CHECK(std::ranges::equal(reader.frame().payload, payload));
    }
}

TEST_CASE("a payload in pieces is one payload, with one checksum") {
    const Bytes payload = alive_payload();
    const ByteView view(payload);
    const std::array<ByteView, 3> pieces{view.first(5), view.subspan(5, 0), view.subspan(5)};
    FrameWriter whole;
    FrameWriter cut;
    CHECK(whole.seal(SMIG_WIRE_ALIVE, std::span(&view, 1)).checksum ==
          cut.seal(SMIG_WIRE_ALIVE, pieces).checksum);
}

TEST_CASE("frames follow each other by number") {
    FrameWriter writer;
    FrameReader reader(4096);
    for (int i = 0; i < 3; ++i) {
        REQUIRE(feed(reader, frame_bytes(writer, SMIG_WIRE_JUMP, {})).ok());
        CHECK(reader.complete());
        CHECK_FALSE(reader.between_frames());
        reader.next();
        CHECK(reader.between_frames());
    }
    CHECK(reader.next_sequence() == 3);
}

TEST_CASE("equal frames with other numbers have other checksums") {
    FrameWriter writer;
    const ByteView nothing;
    const auto first = writer.seal(SMIG_WIRE_JUMP, std::span(&nothing, 1));
    const auto second = writer.seal(SMIG_WIRE_JUMP, std::span(&nothing, 1));
    CHECK(first.checksum != second.checksum);
}

TEST_CASE("BadMagic") {
    Bytes stream = sealed(SMIG_WIRE_JUMP, {});
    stream[0] ^= std::byte{1};
    check_fault(stream, WireFault::bad_magic);
}

TEST_CASE("BadVersion") {
    Bytes stream = sealed(SMIG_WIRE_JUMP, {});
    put_le<std::uint16_t>(stream.data() + 4, SMIG_WIRE_VERSION + 1);
    check_fault(stream, WireFault::bad_version);
}

TEST_CASE("BadType: zero and beyond the last") {
    for (const std::uint16_t type :
         {std::uint16_t{0}, std::uint16_t{SMIG_WIRE_DRAINED + 1}, std::uint16_t{0xffff}}) {
        Bytes stream = sealed(SMIG_WIRE_JUMP, {});
        put_le<std::uint16_t>(stream.data() + 6, type);
        check_fault(stream, WireFault::bad_type);
    }
}

TEST_CASE("BadLength: each type has its own limits, and the reader has one") {
    const auto with_length = [](smig_wire_type type, std::uint32_t length) {
        Bytes stream = sealed(SMIG_WIRE_JUMP, {});
        put_le<std::uint16_t>(stream.data() + 6, static_cast<std::uint16_t>(type));
        put_le<std::uint32_t>(stream.data() + 8, length);
        return stream;
    };
    check_fault(with_length(SMIG_WIRE_JUMP, 1), WireFault::bad_length);
    check_fault(with_length(SMIG_WIRE_ALIVE, 47), WireFault::bad_length);
    check_fault(with_length(SMIG_WIRE_ALIVE, 49), WireFault::bad_length);
    check_fault(with_length(SMIG_WIRE_PAGES, 0xffffffff), WireFault::bad_length);
    check_fault(with_length(SMIG_WIRE_DESCRIBE, 5000), WireFault::bad_length, 4096);
}

TEST_CASE("WrongSequence: a frame left out, a frame repeated") {
    FrameWriter writer;
    const Bytes first = frame_bytes(writer, SMIG_WIRE_JUMP, {});
    check_fault(frame_bytes(writer, SMIG_WIRE_JUMP, {}), WireFault::wrong_sequence);
    FrameReader reader(4096);
    REQUIRE(feed(reader, first).ok());
    reader.next();
    CHECK_FALSE(feed(reader, first).ok());
}

TEST_CASE("WrongChecksum: any flipped bit of a frame is noticed") {
    const Bytes good = sealed(SMIG_WIRE_ALIVE, alive_payload());
    for (std::size_t at = 0; at < good.size(); ++at) {
        for (unsigned bit = 0; bit < 8; ++bit) {
            Bytes bad = good;
            bad[at] ^= static_cast<std::byte>(1u << bit);
            FrameReader reader(4096);
            const auto result = feed(reader, bad);
            CHECK_FALSE((result.ok() && result.value()));
        }
    }
    Bytes bad = good;
    bad[kFrameHeaderBytes] ^= std::byte{1};
    check_fault(bad, WireFault::wrong_checksum);
}

TEST_CASE("a stream that ends inside a frame gives none") {
    const Bytes good = sealed(SMIG_WIRE_ALIVE, alive_payload());
    for (std::size_t length = 0; length < good.size(); ++length) {
        FrameReader reader(4096);
        const auto result = feed(reader, ByteView(good).first(length));
        REQUIRE(result.ok());
        CHECK_FALSE(result.value());
    }
}

TEST_CASE("every type has a name and limits below the limit of all") {
    for (std::uint16_t type = 1; type <= SMIG_WIRE_ABORT; ++type) {
        CHECK(std::string(type_name(type)) != "?");
        CHECK(payload_limits(type).least <= payload_limits(type).most);
        CHECK(payload_limits(type).most <= SMIG_WIRE_MAX_PAYLOAD);
    }
    CHECK(payload_limits(0).least > payload_limits(0).most);
}
