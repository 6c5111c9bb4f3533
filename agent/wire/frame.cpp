// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/frame.hpp"

#include <xxhash.h>

#include <algorithm>
#include <string>

#include "agent/base/check.hpp"
#include "agent/wire/fault.hpp"

namespace smig {

namespace {

constexpr std::uint32_t kTextLimit = SMIG_WIRE_MAX_TEXT;
constexpr std::uint32_t kFailedTextLimit = 4096;

struct TypeRow {
    const char* name;
    LengthLimits limits;
};

// In the order of enum smig_wire_type, from 1 on.
constexpr TypeRow kTypes[] = {
    {"HELLO", {24, 24}},
    {"WELCOME", {24, 24}},
    {"DESCRIBE", {2, kTextLimit}},
    {"ACCEPT", {0, kTextLimit}},
    {"REFUSE", {1, kTextLimit}},
    {"CLOCK_ASK", {16, 16}},
    {"CLOCK", {16, 16}},
    {"LAND", {24, 24}},
    {"LANDED", {40, 40}},
    {"IMAGE", {264, 264}},
    {"BITMAP", {16, 8 + SMIG_WIRE_BITMAP_CHUNK}},
    {"PAGES", {8 + 8 + 1, 8 + SMIG_WIRE_MAX_PAGES * (8 + 4096)}},
    {"ZEROS", {8 + 16, 8 + SMIG_WIRE_MAX_RANGES * 16}},
    {"IMAGE_END", {24, 24}},
    {"READY", {24, 24}},
    {"JUMP", {0, 0}},
    {"FAILED", {8, 8 + kFailedTextLimit}},
    {"ALIVE", {48, 48}},
    {"GO", {736, 736}},
    {"VOID", {32, 32}},
    {"WAIT", {32, 32}},
    {"RELEASED", {32, 32}},
    {"ABORT", {8, 8 + kFailedTextLimit}},
    {"VACANT", {16, 8 + SMIG_WIRE_BITMAP_CHUNK}},
    {"OWED_HELLO", {40, 40}},
    {"OWED_READY", {32, 32}},
    {"FETCH", {8 + 8, 8 + SMIG_WIRE_MAX_FETCH * 8}},
    {"OWED_PAGES", {16 + 8, 16 + SMIG_WIRE_MAX_PAGES * (8 + 4096)}},
    {"OWED_TAKEN", {8, 8}},
    {"DRAINED", {32, 32}},
};
static_assert(std::size(kTypes) == SMIG_WIRE_DRAINED);
static_assert(std::ranges::all_of(kTypes, [](const TypeRow& row) {
    return row.limits.most <= SMIG_WIRE_MAX_PAYLOAD;
}));

}  // namespace

const char* wire_fault_name(WireFault fault) {
    switch (fault) {
        case WireFault::bad_magic:
            return "BadMagic";
        case WireFault::bad_version:
            return "BadVersion";
        case WireFault::bad_type:
            return "BadType";
        case WireFault::bad_length:
            return "BadLength";
        case WireFault::truncated:
            return "Truncated";
        case WireFault::trailing:
            return "Trailing";
        case WireFault::wrong_sequence:
            return "WrongSequence";
        case WireFault::wrong_checksum:
            return "WrongChecksum";
        case WireFault::bad_count:
            return "BadCount";
        case WireFault::bad_range:
            return "BadRange";
        case WireFault::bad_value:
            return "BadValue";
        case WireFault::not_reserved:
            return "NotReserved";
        case WireFault::unexpected:
            return "Unexpected";
    }
    SMIG_CHECK(false);
    return "";
}

LengthLimits payload_limits(std::uint16_t type) {
    if (type == 0 || type > std::size(kTypes)) return {1, 0};
    return kTypes[type - 1].limits;
}

const char* type_name(std::uint16_t type) {
    if (type == 0 || type > std::size(kTypes)) return "?";
    return kTypes[type - 1].name;
}

SealedHeader FrameWriter::seal(smig_wire_type type, std::span<const ByteView> pieces) {
    std::size_t length = 0;
    for (const ByteView piece : pieces) length += piece.size();
    const LengthLimits limits = payload_limits(static_cast<std::uint16_t>(type));
    SMIG_CHECK(length >= limits.least && length <= limits.most);

    SealedHeader sealed;
    std::byte* out = sealed.bytes.data();
    put_le<std::uint32_t>(out, SMIG_WIRE_MAGIC);
    put_le<std::uint16_t>(out + 4, SMIG_WIRE_VERSION);
    put_le<std::uint16_t>(out + 6, static_cast<std::uint16_t>(type));
    put_le<std::uint32_t>(out + 8, static_cast<std::uint32_t>(length));
    put_le<std::uint32_t>(out + 12, sequence_++);

    XXH64_state_t hash;
    XXH64_reset(&hash, 0);
    XXH64_update(&hash, out, kFrameHeaderBytes);
    for (const ByteView piece : pieces) XXH64_update(&hash, piece.data(), piece.size());
    sealed.checksum = XXH64_digest(&hash);
    put_le<std::uint64_t>(out + 16, sealed.checksum);
    return sealed;
}

struct FrameReader::Hash {
    XXH64_state_t state;
};

FrameReader::FrameReader(std::size_t max_payload, std::uint32_t next_sequence)
    : payload_(std::make_unique<std::byte[]>(max_payload)),
      hash_(std::make_unique<Hash>()),
      max_payload_(max_payload),
      sequence_(next_sequence) {}

FrameReader::FrameReader(FrameReader&&) noexcept = default;
FrameReader& FrameReader::operator=(FrameReader&&) noexcept = default;
FrameReader::~FrameReader() = default;

std::span<std::byte> FrameReader::wanted() {
    if (complete_) return {};
    if (have_ < kFrameHeaderBytes) return std::span(header_).subspan(have_);
    return {payload_.get() + (have_ - kFrameHeaderBytes), length_ - (have_ - kFrameHeaderBytes)};
}

Result<void> FrameReader::check_header() {
    const std::byte* in = header_.data();
    if (get_le<std::uint32_t>(in) != SMIG_WIRE_MAGIC)
        return wire_error(WireFault::bad_magic, "the peer does not speak this protocol");
    const auto version = get_le<std::uint16_t>(in + 4);
    if (version != SMIG_WIRE_VERSION)
        return wire_error(WireFault::bad_version, "the peer speaks version " + std::to_string(version) +
                                                      ", this agent " + std::to_string(SMIG_WIRE_VERSION) +
                                                      ": install the same on both");
    type_ = get_le<std::uint16_t>(in + 6);
    const LengthLimits limits = payload_limits(type_);
    if (limits.least > limits.most) return wire_error(WireFault::bad_type, "type " + std::to_string(type_));
    const std::size_t length = get_le<std::uint32_t>(in + 8);
    if (length < limits.least || length > limits.most || length > max_payload_)
        return wire_error(WireFault::bad_length,
                          std::string(type_name(type_)) + " of " + std::to_string(length) + " bytes");
    length_ = length;
    const auto sequence = get_le<std::uint32_t>(in + 12);
    if (sequence != sequence_)
        return wire_error(WireFault::wrong_sequence, "frame " + std::to_string(sequence) + " where " +
                                                         std::to_string(sequence_) + " was due");
    checksum_ = get_le<std::uint64_t>(in + 16);

    FrameHeaderBytes hashed = header_;
    put_le<std::uint64_t>(hashed.data() + 16, 0);
    XXH64_reset(&hash_->state, 0);
    XXH64_update(&hash_->state, hashed.data(), hashed.size());
    return {};
}

Result<bool> FrameReader::took(std::size_t count) {
    const std::span<std::byte> place = wanted();
    SMIG_CHECK(count <= place.size());
    const bool in_header = have_ < kFrameHeaderBytes;
    have_ += count;
    if (in_header) {
        if (have_ < kFrameHeaderBytes) return false;
        if (auto header = check_header(); !header) return header.error();
    } else {
        XXH64_update(&hash_->state, place.data(), count);
    }
    if (have_ < kFrameHeaderBytes + length_) return false;
    if (XXH64_digest(&hash_->state) != checksum_)
        return wire_error(WireFault::wrong_checksum,
                          std::string(type_name(type_)) + " frame " + std::to_string(sequence_));
    complete_ = true;
    return true;
}

Frame FrameReader::frame() const {
    SMIG_CHECK(complete_);
    return {static_cast<smig_wire_type>(type_), ByteView(payload_.get(), length_), checksum_};
}

void FrameReader::next() {
    SMIG_CHECK(complete_);
    complete_ = false;
    have_ = 0;
    length_ = 0;
    ++sequence_;
}

}  // namespace smig
