// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/codec.hpp"

#include <algorithm>

#include "agent/base/check.hpp"
#include "agent/wire/fault.hpp"

namespace smig {

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kFailureTextMost = 4096;
// Passes send pages again and again: every page of the largest machine a thousand times.
constexpr std::uint64_t kSentPagesMost = SMIG_WIRE_MAX_TOP_PFN << 10;

// The value if the payload held exactly its fields.
template <class Message>
Result<Message> whole(const BytesReader& reader, const Message& message, const char* name) {
    if (!reader.ok()) return wire_error(WireFault::truncated, name);
    if (!reader.at_end()) return wire_error(WireFault::trailing, name);
    return message;
}

Error not_reserved(const char* name) {
    return wire_error(WireFault::not_reserved, name);
}

smig_wire_verdict read_ids(BytesReader& reader) {
    smig_wire_verdict ids{};
    reader.raw(ids.epoch);
    reader.raw(ids.boot_nonce);
    return ids;
}

Result<smig_wire_ready> decode_counts(ByteView payload, const char* name) {
    BytesReader reader(payload);
    smig_wire_ready message{};
    message.data_pages = reader.number<std::uint64_t>();
    message.zero_pages = reader.number<std::uint64_t>();
    message.digest = reader.number<std::uint64_t>();
    if (message.data_pages > kSentPagesMost || message.zero_pages > kSentPagesMost)
        return wire_error(WireFault::bad_count, name);
    return whole(reader, message, name);
}

}  // namespace

Bytes encode(const smig_wire_hello& message) {
    Bytes out;
    BytesWriter(out).raw(message.epoch).number(message.flags).number(message.reserved);
    return out;
}

Result<smig_wire_hello> decode_hello(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_hello message{};
    reader.raw(message.epoch);
    message.flags = reader.number<std::uint32_t>();
    message.reserved = reader.number<std::uint32_t>();
    if ((message.flags & ~SMIG_WIRE_INSECURE) != 0 || message.reserved != 0) return not_reserved("HELLO");
    return whole(reader, message, "HELLO");
}

Bytes encode(const smig_wire_welcome& message) {
    Bytes out;
    BytesWriter(out).raw(message.boot_nonce).number(message.flags).number(message.reserved);
    return out;
}

Result<smig_wire_welcome> decode_welcome(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_welcome message{};
    reader.raw(message.boot_nonce);
    message.flags = reader.number<std::uint32_t>();
    message.reserved = reader.number<std::uint32_t>();
    if ((message.flags & ~SMIG_WIRE_INSECURE) != 0 || message.reserved != 0) return not_reserved("WELCOME");
    return whole(reader, message, "WELCOME");
}

Bytes encode(const smig_wire_clock& message) {
    Bytes out;
    BytesWriter(out).number(message.source_mono_ns).number(message.target_mono_ns);
    return out;
}

Result<smig_wire_clock> decode_clock(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_clock message{};
    message.source_mono_ns = reader.number<std::uint64_t>();
    message.target_mono_ns = reader.number<std::uint64_t>();
    return whole(reader, message, "CLOCK");
}

Bytes encode(const smig_wire_land& message) {
    Bytes out;
    BytesWriter(out)
        .number(message.clock_offset_ns)
        .number(message.clock_error_ns)
        .number(message.control_port)
        .number(message.reserved);
    return out;
}

Result<smig_wire_land> decode_land(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_land message{};
    message.clock_offset_ns = reader.number<std::uint64_t>();
    message.clock_error_ns = reader.number<std::uint64_t>();
    message.control_port = reader.number<std::uint32_t>();
    message.reserved = reader.number<std::uint32_t>();
    if (message.reserved != 0) return not_reserved("LAND");
    if (reader.ok() && (message.control_port == 0 || message.control_port > 65535))
        return wire_error(WireFault::bad_value, "LAND: control port");
    return whole(reader, message, "LAND");
}

Bytes encode(const smig_wire_landed& message) {
    Bytes out;
    BytesWriter(out)
        .number(message.held_pages)
        .number(message.footprint_pages)
        .number(message.vacant_pages)
        .number(message.kernel_start)
        .number(message.kernel_pages);
    return out;
}

Result<smig_wire_landed> decode_landed(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_landed message{};
    message.held_pages = reader.number<std::uint64_t>();
    message.footprint_pages = reader.number<std::uint64_t>();
    message.vacant_pages = reader.number<std::uint64_t>();
    message.kernel_start = reader.number<std::uint64_t>();
    message.kernel_pages = reader.number<std::uint64_t>();
    if (message.held_pages > SMIG_WIRE_MAX_TOP_PFN || message.footprint_pages > SMIG_WIRE_MAX_TOP_PFN ||
        message.vacant_pages > SMIG_WIRE_MAX_TOP_PFN)
        return wire_error(WireFault::bad_count, "LANDED");
    if (message.kernel_start > SMIG_WIRE_MAX_TOP_PFN ||
        message.kernel_pages > SMIG_WIRE_MAX_TOP_PFN - message.kernel_start)
        return wire_error(WireFault::bad_range, "LANDED");
    return whole(reader, message, "LANDED");
}

Bytes encode(const smig_wire_image& message) {
    Bytes out;
    BytesWriter(out)
        .number(message.magic)
        .number(message.resume_va)
        .number(message.resume_pa)
        .number(message.cr3)
        .number(message.handover_pfn)
        .number(message.top_pfn)
        .number(message.image_pages)
        .number(message.zero_pages)
        .number(message.page_table_levels)
        .number(message.vcpus)
        .raw(message.release)
        .raw(message.version);
    return out;
}

Result<smig_wire_image> decode_image(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_image message{};
    message.magic = reader.number<std::uint64_t>();
    message.resume_va = reader.number<std::uint64_t>();
    message.resume_pa = reader.number<std::uint64_t>();
    message.cr3 = reader.number<std::uint64_t>();
    message.handover_pfn = reader.number<std::uint64_t>();
    message.top_pfn = reader.number<std::uint64_t>();
    message.image_pages = reader.number<std::uint64_t>();
    message.zero_pages = reader.number<std::uint64_t>();
    message.page_table_levels = reader.number<std::uint32_t>();
    message.vcpus = reader.number<std::uint32_t>();
    reader.raw(message.release);
    reader.raw(message.version);
    auto result = whole(reader, message, "IMAGE");
    if (!result) return result;
    if (message.top_pfn == 0 || message.top_pfn > SMIG_WIRE_MAX_TOP_PFN ||
        message.handover_pfn >= message.top_pfn)
        return wire_error(WireFault::bad_range, "IMAGE: top_pfn or handover_pfn");
    if (message.image_pages == 0 || message.image_pages > message.top_pfn ||
        message.zero_pages > message.image_pages)
        return wire_error(WireFault::bad_count, "IMAGE: image_pages or zero_pages");
    if (message.release[sizeof(message.release) - 1] != 0 ||
        message.version[sizeof(message.version) - 1] != 0)
        return wire_error(WireFault::bad_value, "IMAGE: release or version does not end");
    return result;
}

Bytes encode(const smig_wire_image_end& message) {
    Bytes out;
    BytesWriter(out).number(message.data_pages).number(message.zero_pages).number(message.digest);
    return out;
}

Result<smig_wire_image_end> decode_image_end(ByteView payload) {
    auto counts = decode_counts(payload, "IMAGE_END");
    if (!counts) return counts.error();
    return smig_wire_image_end{counts.value().data_pages, counts.value().zero_pages, counts.value().digest};
}

Bytes encode(const smig_wire_ready& message) {
    return encode(smig_wire_image_end{message.data_pages, message.zero_pages, message.digest});
}

Result<smig_wire_ready> decode_ready(ByteView payload) {
    return decode_counts(payload, "READY");
}

Bytes encode(const smig_wire_alive& message) {
    Bytes out;
    BytesWriter(out).raw(message.epoch).raw(message.boot_nonce).raw(message.drawn);
    return out;
}

Result<smig_wire_alive> decode_alive(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_alive message{};
    reader.raw(message.epoch);
    reader.raw(message.boot_nonce);
    reader.raw(message.drawn);
    return whole(reader, message, "ALIVE");
}

Bytes encode(const smig_wire_verdict& message) {
    Bytes out;
    BytesWriter(out).raw(message.epoch).raw(message.boot_nonce);
    return out;
}

Result<smig_wire_verdict> decode_verdict(ByteView payload) {
    BytesReader reader(payload);
    const smig_wire_verdict message = read_ids(reader);
    return whole(reader, message, "verdict");
}

Bytes encode(const smig_wire_go& message) {
    Bytes out;
    BytesWriter writer(out);
    writer.raw(message.epoch)
        .raw(message.boot_nonce)
        .number(message.data_pages)
        .number(message.zero_pages)
        .number(message.payload_bytes)
        .number(message.read_ns)
        .number(message.captured_ns)
        .number(message.image_end_ns)
        .number(message.ready_ns)
        .number(message.jump_ns)
        .number(message.alive_ns)
        .number(message.commit_ns)
        .number(message.image_pages)
        .number(message.shadow_pages)
        .number(message.shadow_used);
    for (const std::uint64_t pages : message.class_pages) writer.number(pages);
    for (const std::uint64_t us : message.source_us) writer.number(us);
    writer.number(message.passes)
        .number(message.pass_data_pages)
        .number(message.pass_zero_pages)
        .number(message.pass_same_pages)
        .number(message.pass_payload_bytes)
        .number(message.pass_ns)
        .number(message.stop_reason)
        .number(message.send_pages)
        .number(message.same_pages)
        .number(message.missed_pages)
        .number(message.verified_pages)
        .number(message.find_kernel_us)
        .number(message.find_user_us)
        .number(message.pass_read_ns)
        .number(message.hashed);
    for (const std::uint64_t pages : message.send_by_class) writer.number(pages);
    writer.number(message.owed_pages)
        .number(message.owe_us)
        .number(message.hot_pages)
        .number(message.repeated_pages);
    return out;
}

Result<smig_wire_go> decode_go(ByteView payload) {
    BytesReader reader(payload);
    smig_wire_go message{};
    reader.raw(message.epoch);
    reader.raw(message.boot_nonce);
    message.data_pages = reader.number<std::uint64_t>();
    message.zero_pages = reader.number<std::uint64_t>();
    message.payload_bytes = reader.number<std::uint64_t>();
    message.read_ns = reader.number<std::uint64_t>();
    message.captured_ns = reader.number<std::uint64_t>();
    message.image_end_ns = reader.number<std::uint64_t>();
    message.ready_ns = reader.number<std::uint64_t>();
    message.jump_ns = reader.number<std::uint64_t>();
    message.alive_ns = reader.number<std::uint64_t>();
    message.commit_ns = reader.number<std::uint64_t>();
    message.image_pages = reader.number<std::uint64_t>();
    message.shadow_pages = reader.number<std::uint64_t>();
    message.shadow_used = reader.number<std::uint64_t>();
    for (std::uint64_t& pages : message.class_pages) pages = reader.number<std::uint64_t>();
    for (std::uint64_t& us : message.source_us) us = reader.number<std::uint64_t>();
    message.passes = reader.number<std::uint64_t>();
    message.pass_data_pages = reader.number<std::uint64_t>();
    message.pass_zero_pages = reader.number<std::uint64_t>();
    message.pass_same_pages = reader.number<std::uint64_t>();
    message.pass_payload_bytes = reader.number<std::uint64_t>();
    message.pass_ns = reader.number<std::uint64_t>();
    message.stop_reason = reader.number<std::uint64_t>();
    message.send_pages = reader.number<std::uint64_t>();
    message.same_pages = reader.number<std::uint64_t>();
    message.missed_pages = reader.number<std::uint64_t>();
    message.verified_pages = reader.number<std::uint64_t>();
    message.find_kernel_us = reader.number<std::uint64_t>();
    message.find_user_us = reader.number<std::uint64_t>();
    message.pass_read_ns = reader.number<std::uint64_t>();
    message.hashed = reader.number<std::uint64_t>();
    for (std::uint64_t& pages : message.send_by_class) pages = reader.number<std::uint64_t>();
    message.owed_pages = reader.number<std::uint64_t>();
    message.owe_us = reader.number<std::uint64_t>();
    message.hot_pages = reader.number<std::uint64_t>();
    message.repeated_pages = reader.number<std::uint64_t>();
    return whole(reader, message, "GO");
}

Bytes encode(const Failure& message) {
    const std::string_view text = std::string_view(message.text).substr(0, kFailureTextMost);
    Bytes out;
    BytesWriter(out)
        .number(static_cast<std::uint32_t>(message.reason))
        .number(static_cast<std::uint32_t>(text.size()))
        .view(encode_text(text));
    return out;
}

Result<Failure> decode_failure(ByteView payload) {
    BytesReader reader(payload);
    const auto reason = reader.number<std::uint32_t>();
    const auto length = reader.number<std::uint32_t>();
    const ByteView text = reader.rest();
    if (!reader.ok() || text.size() < length) return wire_error(WireFault::truncated, "FAILED");
    if (text.size() > length) return wire_error(WireFault::trailing, "FAILED");
    if (length > kFailureTextMost) return wire_error(WireFault::bad_length, "FAILED");
    if (reason == 0 || reason > SMIG_REASON_INTEGRITY)
        return wire_error(WireFault::bad_value, "FAILED: reason");
    return Failure{static_cast<smig_wire_reason>(reason), printable(decode_text(text))};
}

ByteView encode_text(std::string_view text) {
    return std::as_bytes(std::span(text));
}

std::string decode_text(ByteView payload) {
    return {reinterpret_cast<const char*>(payload.data()), payload.size()};
}

std::string printable(std::string_view text) {
    std::string out(text);
    std::ranges::replace_if(
        out,
        [](char letter) {
            return (static_cast<unsigned char>(letter) < 0x20 && letter != '\n') || letter == 0x7f;
        },
        '?');
    return out;
}

std::array<std::byte, 8> encode_bitmap_head(std::uint64_t offset) {
    std::array<std::byte, 8> head{};
    put_le(head.data(), offset);
    return head;
}

Result<BitmapView> decode_bitmap(ByteView payload, const char* name) {
    BytesReader reader(payload);
    const auto offset = reader.number<std::uint64_t>();
    const ByteView words = reader.rest();
    if (!reader.ok() || words.empty()) return wire_error(WireFault::truncated, name);
    if (words.size() % 8 != 0 || words.size() > SMIG_WIRE_BITMAP_CHUNK)
        return wire_error(WireFault::bad_length, name);
    if (offset % 8 != 0 || offset > SMIG_WIRE_MAX_TOP_PFN / 8 ||
        words.size() > SMIG_WIRE_MAX_TOP_PFN / 8 - offset)
        return wire_error(WireFault::bad_range, name);
    return BitmapView{offset, words};
}

std::array<std::byte, 8> encode_pages_head(std::uint32_t count, std::uint32_t flags) {
    std::array<std::byte, 8> head{};
    put_le(head.data(), count);
    put_le(head.data() + 4, flags);
    return head;
}

Result<PagesView> decode_pages(ByteView payload, std::span<std::uint64_t> pfns) {
    SMIG_CHECK(pfns.size() >= SMIG_WIRE_MAX_PAGES);
    BytesReader reader(payload);
    const auto count = reader.number<std::uint32_t>();
    const auto flags = reader.number<std::uint32_t>();
    if (!reader.ok()) return wire_error(WireFault::truncated, "PAGES");
    if ((flags & ~SMIG_WIRE_PAGES_LZ4) != 0) return wire_error(WireFault::not_reserved, "PAGES");
    if (count == 0 || count > SMIG_WIRE_MAX_PAGES) return wire_error(WireFault::bad_count, "PAGES");
    for (std::uint32_t i = 0; i < count; ++i) {
        pfns[i] = reader.number<std::uint64_t>();
        if (pfns[i] >= SMIG_WIRE_MAX_TOP_PFN || (i > 0 && pfns[i] <= pfns[i - 1]))
            return wire_error(WireFault::bad_range, "PAGES: page numbers must ascend and be below the top");
    }
    const ByteView data = reader.rest();
    if ((flags & SMIG_WIRE_PAGES_LZ4) != 0) {
        if (!reader.ok() || data.empty()) return wire_error(WireFault::truncated, "PAGES");
        // A block that saves nothing is sent as it is.
        if (data.size() >= count * kPageBytes) return wire_error(WireFault::bad_length, "PAGES");
        return PagesView{count, true, data};
    }
    if (!reader.ok() || data.size() < count * kPageBytes) return wire_error(WireFault::truncated, "PAGES");
    if (data.size() > count * kPageBytes) return wire_error(WireFault::trailing, "PAGES");
    return PagesView{count, false, data};
}

Bytes encode_zeros(std::span<const smig_wire_range> ranges) {
    SMIG_CHECK(!ranges.empty() && ranges.size() <= SMIG_WIRE_MAX_RANGES);
    Bytes out;
    out.reserve(8 + 16 * ranges.size());
    BytesWriter writer(out);
    writer.number(static_cast<std::uint32_t>(ranges.size())).number(std::uint32_t{0});
    for (const smig_wire_range& range : ranges) writer.number(range.start).number(range.pages);
    return out;
}

Result<std::uint32_t> decode_zeros(ByteView payload, std::span<smig_wire_range> ranges) {
    SMIG_CHECK(ranges.size() >= SMIG_WIRE_MAX_RANGES);
    BytesReader reader(payload);
    const auto count = reader.number<std::uint32_t>();
    const auto flags = reader.number<std::uint32_t>();
    if (!reader.ok()) return wire_error(WireFault::truncated, "ZEROS");
    if (flags != 0) return wire_error(WireFault::not_reserved, "ZEROS");
    if (count == 0 || count > SMIG_WIRE_MAX_RANGES) return wire_error(WireFault::bad_count, "ZEROS");
    std::uint64_t end = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        ranges[i].start = reader.number<std::uint64_t>();
        ranges[i].pages = reader.number<std::uint64_t>();
        if (!reader.ok()) return wire_error(WireFault::truncated, "ZEROS");
        if (ranges[i].start < end || ranges[i].start >= SMIG_WIRE_MAX_TOP_PFN || ranges[i].pages == 0 ||
            ranges[i].pages > SMIG_WIRE_MAX_TOP_PFN - ranges[i].start)
            return wire_error(WireFault::bad_range, "ZEROS: ranges must ascend and end below the top");
        end = ranges[i].start + ranges[i].pages;
    }
    if (!reader.at_end()) return wire_error(WireFault::trailing, "ZEROS");
    return count;
}

}  // namespace smig
