// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/page_block.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>

using namespace smig;

namespace {

Bytes text_pages(std::size_t count) {
    Bytes pages(count * 4096);
    for (std::size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<std::byte>("abcd efgh"[i * i % 9]);
    return pages;
}

}  // namespace

TEST_CASE("pages come back as they were packed") {
    PagePacker packer(std::size_t{256} * 4096);
    for (const std::size_t count : {1u, 7u, 256u}) {
        const Bytes pages = text_pages(count);
        const ByteView block = packer.pack(pages);
        REQUIRE_FALSE(block.empty());
        CHECK(block.size() < pages.size());
        Bytes out(pages.size());
        REQUIRE(unpack_pages(block, out).ok());
        CHECK(out == pages);
    }
}

TEST_CASE("what does not get shorter is not packed") {
    PagePacker packer(4096);
    Bytes noise(4096);
    std::mt19937_64 random(5);
    for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
    CHECK(packer.pack(noise).empty());
}

TEST_CASE(
    "a block that is cut, long, of another size or noise is the peer's fault and writes nothing outside") {
    PagePacker packer(std::size_t{16} * 4096);
    const Bytes pages = text_pages(16);
    const ByteView packed = packer.pack(pages);
    const Bytes block(packed.begin(), packed.end());
    const auto refused = [&](ByteView hostile, std::size_t size) {
        Bytes out(size + 64, std::byte{0x77});
        const auto result = unpack_pages(hostile, std::span(out).first(size));
        CHECK(std::all_of(out.end() - 64, out.end(), [](std::byte byte) { return byte == std::byte{0x77}; }));
        if (!result) CHECK(result.error().remedy == Remedy::protocol);
        return !result.ok();
    };
    CHECK(refused(ByteView(block).first(block.size() - 1), pages.size()));
    CHECK(refused(ByteView(block).first(1), pages.size()));
    CHECK(refused(block, pages.size() - 4096));
    CHECK(refused(block, pages.size() + 4096));
    Bytes longer = block;
    longer.push_back(std::byte{0});
    CHECK(refused(longer, pages.size()));
    std::mt19937_64 random(6);
    for (int run = 0; run < 20000; ++run) {
        Bytes noise(1 + random() % 200);
        for (std::byte& byte : noise) byte = static_cast<std::byte>(random() % 4 == 0 ? 0xff : random());
        (void)refused(noise, 4096);
        Bytes bent = block;
        bent[random() % bent.size()] ^= static_cast<std::byte>(1u << (random() % 8));
        (void)refused(bent, pages.size());
    }
}
