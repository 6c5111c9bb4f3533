// SPDX-License-Identifier: Apache-2.0
// Frames: header, sequence, checksum.  Pure: bytes in, bytes out; the edges (channel, async_channel) move
// them.
//
// A frame that FrameReader gives out has a known type, a length that this type can have, the next sequence
// number and the right checksum.  Nothing is said of what its payload means: codec.hpp does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "agent/base/result.hpp"
#include "agent/wire/bytes.hpp"
#include "common/wire.h"

namespace smig {

inline constexpr std::size_t kFrameHeaderBytes = 24;
static_assert(sizeof(smig_wire_header) == kFrameHeaderBytes);

using FrameHeaderBytes = std::array<std::byte, kFrameHeaderBytes>;

struct LengthLimits {
    std::uint32_t least;
    std::uint32_t most;
};

// What a payload of this type can measure; {1, 0} when there is no such type.
[[nodiscard]] LengthLimits payload_limits(std::uint16_t type);
// "HELLO"; "?" when there is no such type.
[[nodiscard]] const char* type_name(std::uint16_t type);

struct Frame {
    smig_wire_type type{};
    ByteView payload;  // lives until FrameReader::next()
    std::uint64_t checksum = 0;
};

struct SealedHeader {
    FrameHeaderBytes bytes{};
    std::uint64_t checksum = 0;
};

// Numbers and seals frames of one direction of a connection.
class FrameWriter {
public:
    explicit FrameWriter(std::uint32_t next_sequence = 0) : sequence_(next_sequence) {}
    // The header of a frame whose payload is these pieces, one after the other.
    [[nodiscard]] SealedHeader seal(smig_wire_type type, std::span<const ByteView> pieces);
    [[nodiscard]] std::uint32_t next_sequence() const { return sequence_; }

private:
    std::uint32_t sequence_;
};

// Assembles frames of one direction of a connection.  The payload is received where it stays: callers fill
// wanted().
class FrameReader {
public:
    // Allocates `max_payload` bytes, once.  A longer frame is BadLength.
    explicit FrameReader(std::size_t max_payload, std::uint32_t next_sequence = 0);
    FrameReader(FrameReader&&) noexcept;
    FrameReader& operator=(FrameReader&&) noexcept;
    ~FrameReader();

    // Where the next bytes of the stream go; empty while a frame is complete.
    [[nodiscard]] std::span<std::byte> wanted();
    // `count` bytes were put at wanted().  True: the frame is complete.  Error (protocol): drop the
    // connection.
    Result<bool> took(std::size_t count);
    [[nodiscard]] bool complete() const { return complete_; }
    // The complete frame.
    [[nodiscard]] Frame frame() const;
    // Forgets it; the next one may come.
    void next();
    [[nodiscard]] std::uint32_t next_sequence() const { return sequence_; }
    // No byte of an unfinished frame has come.
    [[nodiscard]] bool between_frames() const { return have_ == 0 && !complete_; }

private:
    struct Hash;
    Result<void> check_header();

    std::unique_ptr<std::byte[]> payload_;
    std::unique_ptr<Hash> hash_;
    std::size_t max_payload_;
    std::uint32_t sequence_;
    FrameHeaderBytes header_{};
    std::size_t have_ = 0;    // bytes of header and payload
    std::size_t length_ = 0;  // of the payload; known when have_ >= kFrameHeaderBytes
    std::uint64_t checksum_ = 0;
    std::uint16_t type_ = 0;
    bool complete_ = false;
};

}  // namespace smig
