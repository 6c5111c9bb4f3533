// SPDX-License-Identifier: Apache-2.0
// The LZ4 block of a PAGES frame.  The only file that knows LZ4 is page_block.cpp.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "agent/base/result.hpp"
#include "agent/wire/bytes.hpp"

namespace smig {

// Packs pages.  Allocates when constructed and never again, so it can be used while the guest is stopped.
class PagePacker {
public:
    // For up to `most_bytes` at a time.
    explicit PagePacker(std::size_t most_bytes);

    // One block that becomes `pages` again; it lives until the next call.  Empty: it would not be shorter.
    [[nodiscard]] ByteView pack(ByteView pages);

private:
    std::unique_ptr<std::byte[]> state_;
    std::unique_ptr<std::byte[]> block_;
    std::size_t most_bytes_;
};

// Fills `pages` to its last byte.  Error (protocol): the block is no LZ4 block, or of another size.  `block`
// is hostile; nothing outside it is read, nothing outside `pages` written.
Result<void> unpack_pages(ByteView block, std::span<std::byte> pages);

}  // namespace smig
