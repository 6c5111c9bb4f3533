// SPDX-License-Identifier: Apache-2.0
// The payloads of the owed phase <-> structs.  Pure, and as hostile-proof as codec.hpp: a decoder gives a
// value whose every field is in its range, or an Error (protocol).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "agent/base/result.hpp"
#include "agent/wire/bytes.hpp"
#include "common/wire.h"

namespace smig {

[[nodiscard]] Bytes encode(const smig_wire_owed_hello& message);
Result<smig_wire_owed_hello> decode_owed_hello(ByteView payload);

[[nodiscard]] Bytes encode(const smig_wire_owed_ready& message);
Result<smig_wire_owed_ready> decode_owed_ready(ByteView payload);

[[nodiscard]] Bytes encode(const smig_wire_owed_taken& message);
Result<smig_wire_owed_taken> decode_owed_taken(ByteView payload);

// FETCH: 1 to SMIG_WIRE_MAX_FETCH page numbers, in the order in which somebody began to wait.
struct FetchView {
    std::uint32_t count = 0;
    bool again = false;
};
[[nodiscard]] Bytes encode_fetch(std::span<const std::uint64_t> pfns, bool again);
// `pfns` has room for SMIG_WIRE_MAX_FETCH; the first `count` are filled, below SMIG_WIRE_MAX_TOP_PFN.
Result<FetchView> decode_fetch(ByteView payload, std::span<std::uint64_t> pfns);

// OWED_PAGES.  Page numbers are below SMIG_WIRE_MAX_TOP_PFN, in no order; `data` lies in the payload.
struct OwedPagesView {
    std::uint32_t count = 0;       // with data
    std::uint32_t zero_count = 0;  // all-zero
    smig_wire_owed_origin origin{};
    ByteView data;  // count pages
};
// The frame's head: sixteen bytes; page numbers and pages follow as they lie in memory.
[[nodiscard]] std::array<std::byte, 16> encode_owed_pages_head(std::uint32_t count, std::uint32_t zero_count,
                                                               smig_wire_owed_origin origin);
// `pfns` has room for SMIG_WIRE_MAX_PAGES: those with data are filled first, then the all-zero ones.
Result<OwedPagesView> decode_owed_pages(ByteView payload, std::span<std::uint64_t> pfns);

}  // namespace smig
