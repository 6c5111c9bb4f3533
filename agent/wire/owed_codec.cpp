// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/owed_codec.hpp"

#include "agent/base/check.hpp"
#include "agent/wire/fault.hpp"

namespace smig {

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::uint32_t kEverySpeculation = (1u << SMIG_SPECULATE_NR) - 1;
constexpr std::uint64_t kMostRun = SMIG_WIRE_MAX_TOP_PFN * 100;

template <class Message>
Result<Message> whole(const BytesReader& reader, const Message& message, const char* name) {
    if (!reader.ok()) return wire_error(WireFault::truncated, name);
    if (!reader.at_end()) return wire_error(WireFault::trailing, name);
    return message;
}

// False: one lies beyond every machine.
bool read_pfns(BytesReader& reader, std::span<std::uint64_t> pfns) {
    bool in_range = true;
    for (std::uint64_t& pfn : pfns) {
        pfn = reader.number<std::uint64_t>();
        in_range = in_range && pfn < SMIG_WIRE_MAX_TOP_PFN;
    }
    return in_range;
}

}  // namespace

Bytes encode(const smig_wire_owed_hello& message) {
    Bytes out;
    BytesWriter(out).raw(message.epoch).raw(message.boot_nonce).number(message.role).number(message.flags);
    return out;
}

Result<smig_wire_owed_hello> decode_owed_hello(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_owed_hello message{};
    reader.raw(message.epoch);
    reader.raw(message.boot_nonce);
    message.role = reader.number<std::uint32_t>();
    message.flags = reader.number<std::uint32_t>();
    if (!reader.ok()) return wire_error(WireFault::truncated, "OWED_HELLO");
    if (message.role != SMIG_OWED_DEMAND && message.role != SMIG_OWED_PUSH)
        return wire_error(WireFault::bad_value, "OWED_HELLO: role");
    if ((message.flags & ~SMIG_WIRE_OWED_AFRESH) != 0)
        return wire_error(WireFault::not_reserved, "OWED_HELLO");
    return whole(reader, message, "OWED_HELLO");
}

Bytes encode(const smig_wire_owed_ready& message) {
    Bytes out;
    BytesWriter(out)
        .number(message.owed_pages)
        .number(message.sent_before)
        .number(message.mean_run_x100)
        .number(message.speculation)
        .number(message.order);
    return out;
}

Result<smig_wire_owed_ready> decode_owed_ready(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_owed_ready message{};
    message.owed_pages = reader.number<std::uint64_t>();
    message.sent_before = reader.number<std::uint64_t>();
    message.mean_run_x100 = reader.number<std::uint64_t>();
    message.speculation = reader.number<std::uint32_t>();
    message.order = reader.number<std::uint32_t>();
    if (!reader.ok()) return wire_error(WireFault::truncated, "OWED_READY");
    if (message.owed_pages > SMIG_WIRE_MAX_TOP_PFN || message.sent_before > message.owed_pages ||
        message.mean_run_x100 > kMostRun)
        return wire_error(WireFault::bad_count, "OWED_READY");
    if ((message.speculation & ~kEverySpeculation) != 0)
        return wire_error(WireFault::bad_value, "OWED_READY: speculation");
    if (message.order != SMIG_PUSH_SEQUENTIAL && message.order != SMIG_PUSH_OUTWARD)
        return wire_error(WireFault::bad_value, "OWED_READY: order");
    return whole(reader, message, "OWED_READY");
}

Bytes encode(const smig_wire_owed_taken& message) {
    Bytes out;
    BytesWriter(out).number(message.frames);
    return out;
}

Result<smig_wire_owed_taken> decode_owed_taken(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_owed_taken message{};
    message.frames = reader.number<std::uint64_t>();
    return whole(reader, message, "OWED_TAKEN");
}

Bytes encode_fetch(std::span<const std::uint64_t> pfns, bool again) {
    SMIG_CHECK(!pfns.empty() && pfns.size() <= SMIG_WIRE_MAX_FETCH);
    Bytes out;
    out.reserve(8 + 8 * pfns.size());
    BytesWriter writer(out);
    writer.number(static_cast<std::uint32_t>(pfns.size())).number(again ? SMIG_WIRE_FETCH_AGAIN : 0u);
    for (const std::uint64_t pfn : pfns) writer.number(pfn);
    return out;
}

Result<FetchView> decode_fetch(ByteView payload, std::span<std::uint64_t> pfns) {
    SMIG_CHECK(pfns.size() >= SMIG_WIRE_MAX_FETCH);
    BytesReader reader(payload);
    const auto count = reader.number<std::uint32_t>();
    const auto flags = reader.number<std::uint32_t>();
    if (!reader.ok()) return wire_error(WireFault::truncated, "FETCH");
    if ((flags & ~SMIG_WIRE_FETCH_AGAIN) != 0) return wire_error(WireFault::not_reserved, "FETCH");
    if (count == 0 || count > SMIG_WIRE_MAX_FETCH) return wire_error(WireFault::bad_count, "FETCH");
    if (!read_pfns(reader, pfns.first(count))) return wire_error(WireFault::bad_range, "FETCH");
    return whole(reader, FetchView{count, (flags & SMIG_WIRE_FETCH_AGAIN) != 0}, "FETCH");
}

std::array<std::byte, 16> encode_owed_pages_head(std::uint32_t count, std::uint32_t zero_count,
                                                 smig_wire_owed_origin origin) {
    std::array<std::byte, 16> head{};
    put_le(head.data(), count);
    put_le(head.data() + 4, zero_count);
    put_le(head.data() + 8, static_cast<std::uint32_t>(origin));
    return head;
}

Result<OwedPagesView> decode_owed_pages(ByteView payload, std::span<std::uint64_t> pfns) {
    SMIG_CHECK(pfns.size() >= SMIG_WIRE_MAX_PAGES);
    BytesReader reader(payload);
    const auto count = reader.number<std::uint32_t>();
    const auto zero_count = reader.number<std::uint32_t>();
    const auto origin = reader.number<std::uint32_t>();
    const auto reserved = reader.number<std::uint32_t>();
    if (!reader.ok()) return wire_error(WireFault::truncated, "OWED_PAGES");
    if (reserved != 0) return wire_error(WireFault::not_reserved, "OWED_PAGES");
    if (origin < SMIG_OWED_ASKED || origin > SMIG_OWED_PUSHED)
        return wire_error(WireFault::bad_value, "OWED_PAGES: origin");
    // Each by itself first: their sum could wrap.
    if (count > SMIG_WIRE_MAX_PAGES || zero_count > SMIG_WIRE_MAX_PAGES || count + zero_count == 0 ||
        count + zero_count > SMIG_WIRE_MAX_PAGES)
        return wire_error(WireFault::bad_count, "OWED_PAGES");
    const bool in_range = read_pfns(reader, pfns.first(count + zero_count));
    if (!reader.ok()) return wire_error(WireFault::truncated, "OWED_PAGES");
    if (!in_range) return wire_error(WireFault::bad_range, "OWED_PAGES");
    const ByteView data = reader.rest();
    if (data.size() < count * kPageBytes) return wire_error(WireFault::truncated, "OWED_PAGES");
    if (data.size() > count * kPageBytes) return wire_error(WireFault::trailing, "OWED_PAGES");
    return OwedPagesView{count, zero_count, static_cast<smig_wire_owed_origin>(origin), data};
}

}  // namespace smig
