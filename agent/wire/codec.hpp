// SPDX-License-Identifier: Apache-2.0
// Payloads <-> structs, field by field.  Pure.  Every decoder takes hostile bytes and gives a value whose
// every field is in its range, or an Error (protocol) whose text begins with the fault's name.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "agent/base/result.hpp"
#include "agent/wire/bytes.hpp"
#include "common/wire.h"

namespace smig {

using WireId = std::array<std::uint8_t, SMIG_WIRE_ID_LEN>;

[[nodiscard]] Bytes encode(const smig_wire_hello& message);
[[nodiscard]] Bytes encode(const smig_wire_welcome& message);
[[nodiscard]] Bytes encode(const smig_wire_clock& message);
[[nodiscard]] Bytes encode(const smig_wire_land& message);
[[nodiscard]] Bytes encode(const smig_wire_landed& message);
[[nodiscard]] Bytes encode(const smig_wire_image& message);
[[nodiscard]] Bytes encode(const smig_wire_image_end& message);
[[nodiscard]] Bytes encode(const smig_wire_ready& message);
[[nodiscard]] Bytes encode(const smig_wire_alive& message);
[[nodiscard]] Bytes encode(const smig_wire_verdict& message);
[[nodiscard]] Bytes encode(const smig_wire_go& message);

Result<smig_wire_hello> decode_hello(ByteView payload);
Result<smig_wire_welcome> decode_welcome(ByteView payload);
Result<smig_wire_clock> decode_clock(ByteView payload);
Result<smig_wire_land> decode_land(ByteView payload);
Result<smig_wire_landed> decode_landed(ByteView payload);
Result<smig_wire_image> decode_image(ByteView payload);
Result<smig_wire_image_end> decode_image_end(ByteView payload);
Result<smig_wire_ready> decode_ready(ByteView payload);
Result<smig_wire_alive> decode_alive(ByteView payload);
Result<smig_wire_verdict> decode_verdict(ByteView payload);
Result<smig_wire_go> decode_go(ByteView payload);

// FAILED and ABORT.  The text is cut to what a frame holds.
struct Failure {
    smig_wire_reason reason = SMIG_REASON_PROTOCOL;
    std::string text;  // printable
};
[[nodiscard]] Bytes encode(const Failure& message);
Result<Failure> decode_failure(ByteView payload);

// DESCRIBE, ACCEPT, REFUSE: the payload is the text.
[[nodiscard]] ByteView encode_text(std::string_view text);
[[nodiscard]] std::string decode_text(ByteView payload);

// What comes from a peer and goes to a terminal: control characters become '?', line ends stay.
[[nodiscard]] std::string printable(std::string_view text);

// BITMAP and VACANT; `name` is for errors.  The words are little-endian, 8 bytes each, and lie in the
// payload.
struct BitmapView {
    std::uint64_t offset = 0;  // bytes, a multiple of 8
    ByteView words;            // a positive multiple of 8 bytes
};
[[nodiscard]] std::array<std::byte, 8> encode_bitmap_head(std::uint64_t offset);
Result<BitmapView> decode_bitmap(ByteView payload, const char* name = "BITMAP");

// PAGES.  page numbers below SMIG_WIRE_MAX_TOP_PFN, each once; `data` lies in the payload: count pages, or a
// shorter LZ4 block, not looked at yet.
struct PagesView {
    std::uint32_t count = 0;
    bool lz4 = false;
    ByteView data;
};
// `flags`: 0 or SMIG_WIRE_PAGES_LZ4.
[[nodiscard]] std::array<std::byte, 8> encode_pages_head(std::uint32_t count, std::uint32_t flags = 0);
// `pfns` has room for SMIG_WIRE_MAX_PAGES; the first `count` are filled, strictly ascending.
Result<PagesView> decode_pages(ByteView payload, std::span<std::uint64_t> pfns);

// ZEROS.  `ranges` has room for SMIG_WIRE_MAX_RANGES; the first `count` (returned) are filled: not empty,
// ascending, not overlapping, below SMIG_WIRE_MAX_TOP_PFN.
[[nodiscard]] Bytes encode_zeros(std::span<const smig_wire_range> ranges);
Result<std::uint32_t> decode_zeros(ByteView payload, std::span<smig_wire_range> ranges);

}  // namespace smig
