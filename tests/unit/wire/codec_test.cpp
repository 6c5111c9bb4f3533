// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/codec.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include "agent/wire/fault.hpp"
#include "agent/wire/frame.hpp"

using namespace smig;

namespace {

template <class Type>
void check_fault(const Result<Type>& result, WireFault fault) {
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().remedy == Remedy::protocol);
    CHECK_MESSAGE(result.error().text.starts_with(wire_fault_name(fault)), result.error().text);
}

// Every struct whose bytes are all payload: shortened and lengthened by one byte.
template <class Decode>
void check_length(const Bytes& payload, Decode decode) {
    REQUIRE(decode(payload).ok());
    Bytes longer = payload;
    longer.push_back(std::byte{0});
    check_fault(decode(longer), WireFault::trailing);
    Bytes shorter = payload;
    shorter.pop_back();
    CHECK_FALSE(decode(shorter).ok());
    CHECK_FALSE(decode(ByteView{}).ok());
}

smig_wire_image good_image() {
    smig_wire_image image{};
    image.magic = 0x0102030405060708;
    image.resume_va = 1;
    image.resume_pa = 2;
    image.cr3 = 3;
    image.handover_pfn = 9;
    image.top_pfn = 1000;
    image.image_pages = 700;
    image.zero_pages = 200;
    image.page_table_levels = 5;
    image.vcpus = 8;
    std::strcpy(reinterpret_cast<char*>(image.release), "6.1.0");
    std::strcpy(reinterpret_cast<char*>(image.version), "#1 SMP");
    return image;
}

Bytes pages_payload(std::span<const std::uint64_t> pfns) {
    Bytes payload;
    BytesWriter writer(payload);
    writer.view(encode_pages_head(static_cast<std::uint32_t>(pfns.size())));
    for (const std::uint64_t pfn : pfns) writer.number(pfn);
    payload.resize(payload.size() + pfns.size() * 4096, std::byte{7});
    return payload;
}

std::array<std::uint64_t, SMIG_WIRE_MAX_PAGES> pfns;
std::array<smig_wire_range, SMIG_WIRE_MAX_RANGES> ranges;

}  // namespace

TEST_CASE("numbers are little-endian") {
    std::array<std::byte, 8> bytes{};
    put_le<std::uint64_t>(bytes.data(), 0x0102030405060708);
    CHECK(bytes[0] == std::byte{8});
    CHECK(bytes[7] == std::byte{1});
    CHECK(get_le<std::uint64_t>(bytes.data()) == 0x0102030405060708);
    CHECK(get_le<std::uint16_t>(bytes.data()) == 0x0708);
}

TEST_CASE("every message comes back as it was encoded") {
    smig_wire_hello hello{};
    hello.epoch[3] = 5;
    hello.flags = SMIG_WIRE_INSECURE;
    CHECK(decode_hello(encode(hello)).value().epoch[3] == 5);
    CHECK(decode_hello(encode(hello)).value().flags == SMIG_WIRE_INSECURE);
    smig_wire_welcome welcome{};
    welcome.boot_nonce[15] = 6;
    CHECK(decode_welcome(encode(welcome)).value().boot_nonce[15] == 6);
    CHECK(decode_clock(encode(smig_wire_clock{1, 2})).value().target_mono_ns == 2);
    CHECK(decode_land(encode(smig_wire_land{1, 2, 65535, 0})).value().control_port == 65535);
    CHECK(decode_landed(encode(smig_wire_landed{1, 2, 3, 4, 5})).value().footprint_pages == 2);
    CHECK(decode_landed(encode(smig_wire_landed{1, 2, 3, 4, 5})).value().vacant_pages == 3);
    CHECK(decode_landed(encode(smig_wire_landed{1, 2, 3, 4, 5})).value().kernel_pages == 5);
    CHECK(decode_image_end(encode(smig_wire_image_end{1, 2, 3})).value().digest == 3);
    CHECK(decode_ready(encode(smig_wire_ready{1, 2, 3})).value().zero_pages == 2);
    smig_wire_alive alive{};
    alive.drawn[0] = 9;
    CHECK(decode_alive(encode(alive)).value().drawn[0] == 9);
    smig_wire_verdict verdict{};
    verdict.boot_nonce[0] = 8;
    CHECK(decode_verdict(encode(verdict)).value().boot_nonce[0] == 8);
    smig_wire_go go{};
    go.commit_ns = 77;
    go.payload_bytes = 78;
    go.passes = 3;
    go.send_by_class[15] = 79;
    CHECK(decode_go(encode(go)).value().commit_ns == 77);
    CHECK(decode_go(encode(go)).value().payload_bytes == 78);
    CHECK(decode_go(encode(go)).value().passes == 3);
    CHECK(decode_go(encode(go)).value().send_by_class[15] == 79);
    const auto image = decode_image(encode(good_image()));
    REQUIRE(image.ok());
    CHECK(image.value().magic == good_image().magic);
    CHECK(image.value().vcpus == 8);
    CHECK(std::memcmp(image.value().release, good_image().release, 64) == 0);
}

TEST_CASE("what is encoded has a length its frame may have") {
    const auto fits = [](smig_wire_type type, std::size_t size) {
        const LengthLimits limits = payload_limits(static_cast<std::uint16_t>(type));
        return size >= limits.least && size <= limits.most;
    };
    CHECK(fits(SMIG_WIRE_HELLO, encode(smig_wire_hello{}).size()));
    CHECK(fits(SMIG_WIRE_WELCOME, encode(smig_wire_welcome{}).size()));
    CHECK(fits(SMIG_WIRE_CLOCK, encode(smig_wire_clock{}).size()));
    CHECK(fits(SMIG_WIRE_LAND, encode(smig_wire_land{}).size()));
    CHECK(fits(SMIG_WIRE_LANDED, encode(smig_wire_landed{}).size()));
    CHECK(fits(SMIG_WIRE_IMAGE, encode(smig_wire_image{}).size()));
    CHECK(fits(SMIG_WIRE_IMAGE_END, encode(smig_wire_image_end{}).size()));
    CHECK(fits(SMIG_WIRE_READY, encode(smig_wire_ready{}).size()));
    CHECK(fits(SMIG_WIRE_ALIVE, encode(smig_wire_alive{}).size()));
    CHECK(fits(SMIG_WIRE_GO, encode(smig_wire_go{}).size()));
    CHECK(fits(SMIG_WIRE_LANDED, encode(smig_wire_landed{}).size()));
    CHECK(fits(SMIG_WIRE_GO, encode(smig_wire_go{}).size()));
    CHECK(fits(SMIG_WIRE_VOID, encode(smig_wire_verdict{}).size()));
    CHECK(fits(SMIG_WIRE_FAILED, encode(Failure{SMIG_REASON_DEVICE, std::string(9999, 'x')}).size()));
}

TEST_CASE("Truncated, Trailing: a byte less, a byte more") {
    check_length(encode(smig_wire_hello{}), decode_hello);
    check_length(encode(smig_wire_welcome{}), decode_welcome);
    check_length(encode(smig_wire_clock{}), decode_clock);
    check_length(encode(smig_wire_land{0, 0, 1, 0}), decode_land);
    check_length(encode(smig_wire_landed{}), decode_landed);
    check_length(encode(good_image()), decode_image);
    check_length(encode(smig_wire_image_end{}), decode_image_end);
    check_length(encode(smig_wire_ready{}), decode_ready);
    check_length(encode(smig_wire_alive{}), decode_alive);
    check_length(encode(smig_wire_verdict{}), decode_verdict);
    check_length(encode(smig_wire_go{}), decode_go);
    check_length(encode(Failure{SMIG_REASON_DEVICE, "text"}), decode_failure);
}

TEST_CASE("NotReserved: flags and fields that mean nothing yet") {
    smig_wire_hello hello{};
    hello.flags = 2;
    check_fault(decode_hello(encode(hello)), WireFault::not_reserved);
    hello.flags = 0;
    hello.reserved = 1;
    check_fault(decode_hello(encode(hello)), WireFault::not_reserved);
    check_fault(decode_land(encode(smig_wire_land{0, 0, 1, 1})), WireFault::not_reserved);
}

TEST_CASE("BadValue: a control port that is none") {
    check_fault(decode_land(encode(smig_wire_land{0, 0, 0, 0})), WireFault::bad_value);
    check_fault(decode_land(encode(smig_wire_land{0, 0, 65536, 0})), WireFault::bad_value);
}

TEST_CASE("an image header that contradicts itself") {
    smig_wire_image image = good_image();
    image.top_pfn = 0;
    check_fault(decode_image(encode(image)), WireFault::bad_range);
    image.top_pfn = SMIG_WIRE_MAX_TOP_PFN + 1;
    check_fault(decode_image(encode(image)), WireFault::bad_range);
    image = good_image();
    image.handover_pfn = image.top_pfn;
    check_fault(decode_image(encode(image)), WireFault::bad_range);
    image = good_image();
    image.image_pages = image.top_pfn + 1;
    check_fault(decode_image(encode(image)), WireFault::bad_count);
    image = good_image();
    image.zero_pages = image.image_pages + 1;
    check_fault(decode_image(encode(image)), WireFault::bad_count);
    image = good_image();
    std::memset(image.release, 'x', sizeof(image.release));
    check_fault(decode_image(encode(image)), WireFault::bad_value);
}

TEST_CASE("counts beyond any machine") {
    check_fault(decode_landed(encode(smig_wire_landed{SMIG_WIRE_MAX_TOP_PFN + 1, 0, 0, 0, 0})),
                WireFault::bad_count);
    check_fault(decode_landed(encode(smig_wire_landed{0, 0, SMIG_WIRE_MAX_TOP_PFN + 1, 0, 0})),
                WireFault::bad_count);
    check_fault(decode_landed(encode(smig_wire_landed{0, 0, 0, ~0ull, 0})), WireFault::bad_range);
    check_fault(decode_landed(encode(smig_wire_landed{0, 0, 0, 2, SMIG_WIRE_MAX_TOP_PFN - 1})),
                WireFault::bad_range);
    check_fault(decode_image_end(encode(smig_wire_image_end{~0ull, 0, 0})), WireFault::bad_count);
    check_fault(decode_ready(encode(smig_wire_ready{0, ~0ull, 0})), WireFault::bad_count);
}

TEST_CASE("FAILED: reason, length and text are the peer's, and hostile") {
    const auto good = decode_failure(encode(Failure{SMIG_REASON_BUSY, "two\nlines\x1b[31m\x7f"}));
    REQUIRE(good.ok());
    CHECK(good.value().text == "two\nlines?[31m?");
    Bytes payload = encode(Failure{SMIG_REASON_BUSY, "text"});
    put_le<std::uint32_t>(payload.data(), 0);
    check_fault(decode_failure(payload), WireFault::bad_value);
    put_le<std::uint32_t>(payload.data(), SMIG_REASON_INTEGRITY + 1);
    check_fault(decode_failure(payload), WireFault::bad_value);
    payload = encode(Failure{SMIG_REASON_BUSY, "text"});
    put_le<std::uint32_t>(payload.data() + 4, 5);
    check_fault(decode_failure(payload), WireFault::truncated);
    put_le<std::uint32_t>(payload.data() + 4, 3);
    check_fault(decode_failure(payload), WireFault::trailing);
}

TEST_CASE("BITMAP: whole words in its place") {
    const auto payload = [](std::uint64_t offset, std::size_t words_bytes) {
        Bytes out;
        BytesWriter(out).view(encode_bitmap_head(offset));
        out.resize(out.size() + words_bytes);
        return out;
    };
    const Bytes good = payload(8, 16);
    CHECK(decode_bitmap(good).value().offset == 8);
    CHECK(decode_bitmap(good).value().words.size() == 16);
    check_fault(decode_bitmap(payload(8, 0)), WireFault::truncated);
    check_fault(decode_bitmap(payload(8, 12)), WireFault::bad_length);
    check_fault(decode_bitmap(payload(4, 16)), WireFault::bad_range);
    check_fault(decode_bitmap(payload(SMIG_WIRE_MAX_TOP_PFN / 8, 8)), WireFault::bad_range);
    check_fault(decode_bitmap(payload(~7ull, 8)), WireFault::bad_range);
    check_fault(decode_bitmap(ByteView(good).first(7)), WireFault::truncated);
}

TEST_CASE("PAGES: the data lies where the page numbers end") {
    const std::array<std::uint64_t, 3> wanted{1, 2, 900};
    const Bytes payload = pages_payload(wanted);
    const auto pages = decode_pages(payload, pfns);
    REQUIRE(pages.ok());
    CHECK(pages.value().count == 3);
    CHECK(pages.value().data.data() == payload.data() + 8 + 24);
    CHECK(pages.value().data.size() == 3 * 4096);
    CHECK(std::ranges::equal(std::span(pfns).first(3), wanted));
}

TEST_CASE("PAGES: hostile counts and page numbers") {
    const std::array<std::uint64_t, 2> repeated{5, 5};
    check_fault(decode_pages(pages_payload(repeated), pfns), WireFault::bad_range);
    const std::array<std::uint64_t, 2> backwards{5, 4};
    check_fault(decode_pages(pages_payload(backwards), pfns), WireFault::bad_range);
    const std::array<std::uint64_t, 1> beyond{SMIG_WIRE_MAX_TOP_PFN};
    check_fault(decode_pages(pages_payload(beyond), pfns), WireFault::bad_range);
    const std::array<std::uint64_t, 1> one{5};
    Bytes payload = pages_payload(one);
    put_le<std::uint32_t>(payload.data(), 0);
    check_fault(decode_pages(payload, pfns), WireFault::bad_count);
    put_le<std::uint32_t>(payload.data(), 257);
    check_fault(decode_pages(payload, pfns), WireFault::bad_count);
    put_le<std::uint32_t>(payload.data(), 1);
    put_le<std::uint32_t>(payload.data() + 4, 2);
    check_fault(decode_pages(payload, pfns), WireFault::not_reserved);
    put_le<std::uint32_t>(payload.data() + 4, 0);
    payload.pop_back();
    check_fault(decode_pages(payload, pfns), WireFault::truncated);
    payload.resize(payload.size() + 2);
    check_fault(decode_pages(payload, pfns), WireFault::trailing);
}

TEST_CASE("PAGES: a packed block is shorter than its pages, and there") {
    const std::array<std::uint64_t, 1> one{5};
    Bytes payload = pages_payload(one);
    put_le<std::uint32_t>(payload.data() + 4, SMIG_WIRE_PAGES_LZ4);
    check_fault(decode_pages(payload, pfns), WireFault::bad_length);
    payload.pop_back();
    REQUIRE(decode_pages(payload, pfns).ok());
    CHECK(decode_pages(payload, pfns).value().lz4);
    CHECK(decode_pages(payload, pfns).value().data.size() == 4095);
    payload.resize(8 + 8);
    check_fault(decode_pages(payload, pfns), WireFault::truncated);
}

TEST_CASE("VACANT is read like BITMAP, and errors name it") {
    Bytes payload;
    BytesWriter(payload).view(encode_bitmap_head(0));
    payload.resize(payload.size() + 12);
    const auto result = decode_bitmap(payload, "VACANT");
    check_fault(result, WireFault::bad_length);
    CHECK(result.error().text.find("VACANT") != std::string::npos);
}

TEST_CASE("ZEROS: ranges ascend and do not overlap") {
    const std::array<smig_wire_range, 2> good{{{5, 3}, {8, 1}}};
    REQUIRE(decode_zeros(encode_zeros(good), ranges).ok());
    CHECK(ranges[1].start == 8);
    const auto fault_of = [](std::array<smig_wire_range, 2> bad, WireFault fault) {
        check_fault(decode_zeros(encode_zeros(bad), ranges), fault);
    };
    fault_of({{{5, 3}, {7, 1}}}, WireFault::bad_range);
    fault_of({{{5, 3}, {1, 1}}}, WireFault::bad_range);
    fault_of({{{5, 0}, {8, 1}}}, WireFault::bad_range);
    fault_of({{{5, 3}, {8, ~0ull}}}, WireFault::bad_range);
    fault_of({{{5, 3}, {SMIG_WIRE_MAX_TOP_PFN, 1}}}, WireFault::bad_range);
    Bytes payload = encode_zeros(good);
    payload.resize(payload.size() - 16);
    check_fault(decode_zeros(payload, ranges), WireFault::truncated);
    payload = encode_zeros(good);
    payload.resize(payload.size() + 16);
    check_fault(decode_zeros(payload, ranges), WireFault::trailing);
    put_le<std::uint32_t>(payload.data(), SMIG_WIRE_MAX_RANGES + 1);
    check_fault(decode_zeros(payload, ranges), WireFault::bad_count);
}

TEST_CASE("random bytes never get through as more than they are") {
    std::mt19937_64 random(1);
    for (int run = 0; run < 20000; ++run) {
        Bytes payload(random() % 300);
        for (std::byte& byte : payload) byte = static_cast<std::byte>(random() % 4 == 0 ? random() : 0);
        if (const auto pages = decode_pages(payload, pfns))
            CHECK((pages.value().lz4 ? pages.value().data.size() < std::size_t{pages.value().count} * 4096
                                     : pages.value().data.size() == std::size_t{pages.value().count} * 4096));
        if (const auto bitmap = decode_bitmap(payload))
            CHECK(bitmap.value().words.size() == payload.size() - 8);
        if (const auto failure = decode_failure(payload))
            CHECK(failure.value().text.size() == payload.size() - 8);
        (void)decode_zeros(payload, ranges);
        (void)decode_image(payload);
        (void)decode_go(payload);
    }
}
