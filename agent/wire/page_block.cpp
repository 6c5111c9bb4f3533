// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/page_block.hpp"

#include <lz4.h>

#include <string>

#include "agent/base/check.hpp"
#include "agent/wire/fault.hpp"

namespace smig {

namespace {

// LZ4's own default: one step faster costs more of the ratio than it saves of the time.
constexpr int kAcceleration = 1;

}  // namespace

PagePacker::PagePacker(std::size_t most_bytes)
    : state_(std::make_unique<std::byte[]>(static_cast<std::size_t>(LZ4_sizeofState()))),
      block_(std::make_unique<std::byte[]>(most_bytes)),
      most_bytes_(most_bytes) {}

ByteView PagePacker::pack(ByteView pages) {
    SMIG_CHECK(!pages.empty() && pages.size() <= most_bytes_);
    const int packed = LZ4_compress_fast_extState(
        state_.get(), reinterpret_cast<const char*>(pages.data()), reinterpret_cast<char*>(block_.get()),
        static_cast<int>(pages.size()), static_cast<int>(pages.size()) - 1, kAcceleration);
    return {block_.get(), static_cast<std::size_t>(packed > 0 ? packed : 0)};
}

Result<void> unpack_pages(ByteView block, std::span<std::byte> pages) {
    SMIG_CHECK(block.size() <= LZ4_MAX_INPUT_SIZE && pages.size() <= LZ4_MAX_INPUT_SIZE);
    const int unpacked = LZ4_decompress_safe(reinterpret_cast<const char*>(block.data()),
                                             reinterpret_cast<char*>(pages.data()),
                                             static_cast<int>(block.size()), static_cast<int>(pages.size()));
    if (unpacked < 0 || static_cast<std::size_t>(unpacked) != pages.size())
        return wire_error(WireFault::bad_value, "PAGES: a block that does not become its pages");
    return {};
}

}  // namespace smig
