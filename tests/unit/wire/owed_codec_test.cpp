// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/owed_codec.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <random>

#include "agent/wire/codec.hpp"
#include "agent/wire/fault.hpp"
#include "agent/wire/frame.hpp"

using namespace smig;

namespace {

std::array<std::uint64_t, SMIG_WIRE_MAX_PAGES> pfns;

template <class Type>
void check_fault(const Result<Type>& result, WireFault fault) {
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().remedy == Remedy::protocol);
    CHECK_MESSAGE(result.error().text.starts_with(wire_fault_name(fault)), result.error().text);
}

Bytes owed_pages(std::uint32_t count, std::uint32_t zeros, std::uint32_t origin, std::uint32_t reserved = 0) {
    Bytes payload;
    BytesWriter writer(payload);
    writer.number(count).number(zeros).number(origin).number(reserved);
    for (std::uint32_t i = 0; i < count + zeros; ++i) writer.number(std::uint64_t{1000 - i});
    payload.resize(payload.size() + std::size_t{count} * 4096, std::byte{3});
    return payload;
}

template <class Decode>
void check_length(const Bytes& payload, Decode decode) {
    REQUIRE(decode(payload).ok());
    for (std::size_t length = 0; length < payload.size(); length += 1 + length / 7)
        CHECK_FALSE(decode(ByteView(payload).first(length)).ok());
    Bytes longer = payload;
    longer.push_back(std::byte{0});
    check_fault(decode(longer), WireFault::trailing);
}

smig_wire_owed_hello hello(std::uint32_t role, std::uint32_t flags) {
    smig_wire_owed_hello message{};
    message.epoch[1] = 5;
    message.boot_nonce[2] = 6;
    message.role = role;
    message.flags = flags;
    return message;
}

smig_wire_owed_ready ready() {
    return {1000, 400, 250, 1u << SMIG_SPECULATE_PPM, SMIG_PUSH_OUTWARD};
}

}  // namespace

TEST_CASE("every message of the owed phase comes back as it was encoded") {
    const auto greeted = decode_owed_hello(encode(hello(SMIG_OWED_PUSH, SMIG_WIRE_OWED_AFRESH)));
    REQUIRE(greeted.ok());
    CHECK(greeted.value().epoch[1] == 5);
    CHECK(greeted.value().boot_nonce[2] == 6);
    CHECK(greeted.value().role == SMIG_OWED_PUSH);
    CHECK(greeted.value().flags == SMIG_WIRE_OWED_AFRESH);
    const auto answered = decode_owed_ready(encode(ready()));
    REQUIRE(answered.ok());
    CHECK(answered.value().owed_pages == 1000);
    CHECK(answered.value().sent_before == 400);
    CHECK(answered.value().mean_run_x100 == 250);
    CHECK(answered.value().order == SMIG_PUSH_OUTWARD);
    CHECK(decode_owed_taken(encode(smig_wire_owed_taken{77})).value().frames == 77);
    const std::array<std::uint64_t, 3> asked{9, 2, 5};
    const auto fetch = decode_fetch(encode_fetch(asked, true), pfns);
    REQUIRE(fetch.ok());
    CHECK(fetch.value().count == 3);
    CHECK(fetch.value().again);
    CHECK(pfns[0] == 9);
    CHECK(pfns[2] == 5);
    const auto pages = decode_owed_pages(owed_pages(2, 3, SMIG_OWED_SPECULATED), pfns);
    REQUIRE(pages.ok());
    CHECK(pages.value().count == 2);
    CHECK(pages.value().zero_count == 3);
    CHECK(pages.value().origin == SMIG_OWED_SPECULATED);
    CHECK(pages.value().data.size() == 2 * 4096);
    CHECK(pfns[4] == 996);
}

TEST_CASE("the head of OWED_PAGES is what the decoder reads") {
    const auto head = encode_owed_pages_head(0, 2, SMIG_OWED_PUSHED);
    Bytes payload(head.begin(), head.end());
    BytesWriter(payload).number(std::uint64_t{4}).number(std::uint64_t{3});
    const auto pages = decode_owed_pages(payload, pfns);
    REQUIRE(pages.ok());
    CHECK(pages.value().zero_count == 2);
    CHECK(pages.value().origin == SMIG_OWED_PUSHED);
}

TEST_CASE("what is encoded for the owed phase has a length its frame may have") {
    const auto fits = [](smig_wire_type type, std::size_t size) {
        const LengthLimits limits = payload_limits(static_cast<std::uint16_t>(type));
        return size >= limits.least && size <= limits.most;
    };
    CHECK(fits(SMIG_WIRE_OWED_HELLO, encode(hello(1, 0)).size()));
    CHECK(fits(SMIG_WIRE_OWED_READY, encode(ready()).size()));
    CHECK(fits(SMIG_WIRE_OWED_TAKEN, encode(smig_wire_owed_taken{}).size()));
    CHECK(fits(SMIG_WIRE_DRAINED, encode(smig_wire_verdict{}).size()));
    const std::array<std::uint64_t, SMIG_WIRE_MAX_FETCH> many{};
    CHECK(fits(SMIG_WIRE_FETCH, encode_fetch(std::span(many).first(1), false).size()));
    CHECK(fits(SMIG_WIRE_FETCH, encode_fetch(many, false).size()));
    CHECK(fits(SMIG_WIRE_OWED_PAGES, owed_pages(0, 1, 1).size()));
    CHECK(fits(SMIG_WIRE_OWED_PAGES, owed_pages(SMIG_WIRE_MAX_PAGES, 0, 1).size()));
    CHECK_FALSE(fits(SMIG_WIRE_OWED_PAGES, owed_pages(SMIG_WIRE_MAX_PAGES, 1, 1).size()));
}

TEST_CASE("Truncated and Trailing: every message of the owed phase") {
    check_length(encode(hello(SMIG_OWED_DEMAND, 0)), [](ByteView in) { return decode_owed_hello(in); });
    check_length(encode(ready()), [](ByteView in) { return decode_owed_ready(in); });
    check_length(encode(smig_wire_owed_taken{}), [](ByteView in) { return decode_owed_taken(in); });
    const std::array<std::uint64_t, 3> asked{1, 2, 3};
    check_length(encode_fetch(asked, false), [](ByteView in) { return decode_fetch(in, pfns); });
    check_length(owed_pages(1, 1, 3), [](ByteView in) { return decode_owed_pages(in, pfns); });
}

TEST_CASE("BadValue and NotReserved: OWED_HELLO") {
    for (const std::uint32_t role : {0u, 3u, 0xffffffffu})
        check_fault(decode_owed_hello(encode(hello(role, 0))), WireFault::bad_value);
    for (const std::uint32_t flags : {2u, 0x80000001u})
        check_fault(decode_owed_hello(encode(hello(SMIG_OWED_DEMAND, flags))), WireFault::not_reserved);
}

TEST_CASE("BadCount and BadValue: OWED_READY") {
    smig_wire_owed_ready message = ready();
    message.owed_pages = SMIG_WIRE_MAX_TOP_PFN + 1;
    check_fault(decode_owed_ready(encode(message)), WireFault::bad_count);
    message = ready();
    message.sent_before = 1001;
    check_fault(decode_owed_ready(encode(message)), WireFault::bad_count);
    message = ready();
    message.mean_run_x100 = ~0ull;
    check_fault(decode_owed_ready(encode(message)), WireFault::bad_count);
    message = ready();
    message.speculation = 1u << SMIG_SPECULATE_NR;
    check_fault(decode_owed_ready(encode(message)), WireFault::bad_value);
    for (const std::uint32_t order : {0u, 3u}) {
        message = ready();
        message.order = order;
        check_fault(decode_owed_ready(encode(message)), WireFault::bad_value);
    }
}

TEST_CASE("BadCount, BadRange and NotReserved: FETCH") {
    const auto fetch = [](std::uint32_t count, std::uint32_t flags, std::uint64_t pfn, std::size_t numbers) {
        Bytes payload;
        BytesWriter writer(payload);
        writer.number(count).number(flags);
        for (std::size_t i = 0; i < numbers; ++i) writer.number(pfn);
        return payload;
    };
    check_fault(decode_fetch(fetch(0, 0, 1, 0), pfns), WireFault::bad_count);
    check_fault(decode_fetch(fetch(SMIG_WIRE_MAX_FETCH + 1, 0, 1, SMIG_WIRE_MAX_FETCH + 1), pfns),
                WireFault::bad_count);
    check_fault(decode_fetch(fetch(0xffffffff, 0, 1, 1), pfns), WireFault::bad_count);
    check_fault(decode_fetch(fetch(1, 2, 1, 1), pfns), WireFault::not_reserved);
    check_fault(decode_fetch(fetch(1, 0, SMIG_WIRE_MAX_TOP_PFN, 1), pfns), WireFault::bad_range);
    check_fault(decode_fetch(fetch(1, 0, ~0ull, 1), pfns), WireFault::bad_range);
    CHECK(decode_fetch(fetch(1, 0, SMIG_WIRE_MAX_TOP_PFN - 1, 1), pfns).ok());
}

TEST_CASE("BadCount, BadRange, BadValue and NotReserved: OWED_PAGES") {
    check_fault(decode_owed_pages(owed_pages(0, 0, 1), pfns), WireFault::bad_count);
    check_fault(decode_owed_pages(owed_pages(SMIG_WIRE_MAX_PAGES, 1, 1), pfns), WireFault::bad_count);
    check_fault(decode_owed_pages(owed_pages(1, SMIG_WIRE_MAX_PAGES, 1), pfns), WireFault::bad_count);
    // Counts whose sum wraps to one.
    Bytes wraps = owed_pages(1, 0, 1);
    put_le<std::uint32_t>(wraps.data(), 0x80000000u);
    put_le<std::uint32_t>(wraps.data() + 4, 0x80000001u);
    check_fault(decode_owed_pages(wraps, pfns), WireFault::bad_count);
    for (const std::uint32_t origin : {0u, 4u, 0xffffffffu})
        check_fault(decode_owed_pages(owed_pages(1, 0, origin), pfns), WireFault::bad_value);
    check_fault(decode_owed_pages(owed_pages(1, 0, 1, 1), pfns), WireFault::not_reserved);
    for (const std::size_t at : {std::size_t{16}, std::size_t{24}}) {
        Bytes beyond = owed_pages(1, 1, 1);
        put_le<std::uint64_t>(beyond.data() + at, SMIG_WIRE_MAX_TOP_PFN);
        check_fault(decode_owed_pages(beyond, pfns), WireFault::bad_range);
    }
}

TEST_CASE("no byte that is changed in a message of the owed phase leads outside a range") {
    std::mt19937_64 random(11);
    const std::array<std::uint64_t, 2> asked{7, 8};
    const std::array<Bytes, 4> good{encode(hello(1, 0)), encode(ready()), encode_fetch(asked, false),
                                    owed_pages(1, 2, 2)};
    for (int turn = 0; turn < 20'000; ++turn) {
        const std::size_t which = random() % good.size();
        Bytes bytes = good.at(which);
        for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<std::byte>(random());
        if (random() % 4 == 0) bytes.resize(random() % (bytes.size() + 9));
        if (const auto one = decode_owed_hello(bytes); one.ok())
            CHECK((one.value().role == SMIG_OWED_DEMAND || one.value().role == SMIG_OWED_PUSH));
        if (const auto one = decode_owed_ready(bytes); one.ok())
            CHECK(one.value().sent_before <= one.value().owed_pages);
        if (const auto one = decode_fetch(bytes, pfns); one.ok())
            for (std::uint32_t i = 0; i < one.value().count; ++i) CHECK(pfns[i] < SMIG_WIRE_MAX_TOP_PFN);
        if (const auto one = decode_owed_pages(bytes, pfns); one.ok()) {
            CHECK(one.value().count + one.value().zero_count <= SMIG_WIRE_MAX_PAGES);
            CHECK(one.value().data.size() == std::size_t{one.value().count} * 4096);
        }
    }
}
