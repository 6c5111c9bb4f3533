// SPDX-License-Identifier: Apache-2.0
#include "agent/source/image_sender.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "agent/base/check.hpp"
#include "agent/base/clock.hpp"
#include "agent/page/pfn.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/frame.hpp"

namespace smig {

static_assert(std::endian::native == std::endian::little, "image bitmap words travel as they lie in memory");
static_assert(SMIG_WIRE_MAX_PAGES <= SMIG_MAX_BATCH);

struct ImageSender::Buffers {
    std::array<std::uint64_t, SMIG_WIRE_MAX_PAGES> pfns;
    std::array<std::uint8_t, SMIG_WIRE_MAX_PAGES> status;
    std::array<std::byte, std::size_t{SMIG_WIRE_MAX_PAGES} * 8> wire_pfns;
    alignas(kPageBytes) std::array<std::byte, SMIG_WIRE_MAX_PAGES * kPageBytes> data;
};

smig_wire_image to_wire(const smig_image_header& header) {
    smig_wire_image image{};
    image.magic = header.magic;
    image.resume_va = header.resume_va;
    image.resume_pa = header.resume_pa;
    image.cr3 = header.cr3;
    image.handover_pfn = header.handover_pfn;
    image.top_pfn = header.top_pfn;
    image.image_pages = header.image_pages;
    image.zero_pages = header.zero_pages;
    image.page_table_levels = header.page_table_levels;
    image.vcpus = header.vcpus;
    static_assert(sizeof(image.release) == sizeof(header.release) &&
                  sizeof(image.version) == sizeof(header.version));
    std::memcpy(image.release, header.release, sizeof(image.release));
    std::memcpy(image.version, header.version, sizeof(image.version));
    return image;
}

ImageSender::ImageSender(Device& device, FrameSink& sink)
    : device_(device), sink_(sink), buffers_(std::make_unique<Buffers>()) {
    zeros_.reserve(SMIG_WIRE_MAX_RANGES);
}

ImageSender::~ImageSender() = default;

Result<void> ImageSender::put(smig_wire_type type, std::initializer_list<ByteView> pieces) {
    auto checksum = sink_.put(type, std::span(pieces.begin(), pieces.size()));
    if (!checksum) return checksum.error();
    end_.digest += checksum.value();
    payload_bytes_ += kFrameHeaderBytes;
    for (const ByteView piece : pieces) payload_bytes_ += piece.size();
    return {};
}

Result<void> ImageSender::send_bitmap(const ImageBitmap& bitmap) {
    const ByteView words = std::as_bytes(bitmap.words());
    for (std::size_t offset = 0; offset < words.size(); offset += SMIG_WIRE_BITMAP_CHUNK) {
        const std::size_t length = std::min<std::size_t>(SMIG_WIRE_BITMAP_CHUNK, words.size() - offset);
        const auto head = encode_bitmap_head(offset);
        if (auto sent = put(SMIG_WIRE_BITMAP, {head, words.subspan(offset, length)}); !sent) return sent;
    }
    return {};
}

Result<void> ImageSender::send(const smig_image_header& header, const ImageBitmap& bitmap) {
    SMIG_CHECK(bitmap.top().value == header.top_pfn);
    end_ = {};
    payload_bytes_ = 0;
    read_ns_ = 0;
    zeros_.clear();
    const Bytes image = encode(to_wire(header));
    if (auto sent = put(SMIG_WIRE_IMAGE, {image}); !sent) return sent;
    if (auto sent = send_bitmap(bitmap); !sent) return sent;

    std::uint32_t count = 0;
    for (Pfn pfn = bitmap.next(Pfn{0}); pfn < bitmap.top(); pfn = bitmap.next(pfn + PageCount{1})) {
        buffers_->pfns[count++] = pfn.value;
        if (count < SMIG_WIRE_MAX_PAGES) continue;
        if (auto sent = send_batch(count); !sent) return sent;
        count = 0;
    }
    if (count > 0)
        if (auto sent = send_batch(count); !sent) return sent;
    return flush_zeros();
}

Result<void> ImageSender::send_batch(std::uint32_t count) {
    smig_read read{};
    read.pfns = std::bit_cast<std::uint64_t>(buffers_->pfns.data());
    read.status = std::bit_cast<std::uint64_t>(buffers_->status.data());
    read.data = std::bit_cast<std::uint64_t>(buffers_->data.data());
    read.nr = count;
    const std::uint64_t begun_ns = mono_ns();
    if (auto done = device_.read(read); !done) return done;
    read_ns_ += mono_ns() - begun_ns;

    std::uint32_t with_data = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
        if (buffers_->status[i] == SMIG_PAGE_DATA) {
            put_le(buffers_->wire_pfns.data() + std::size_t{8} * with_data++, buffers_->pfns[i]);
        } else {
            SMIG_CHECK(buffers_->status[i] == SMIG_PAGE_ZERO);
            if (auto added = add_zero(buffers_->pfns[i]); !added) return added;
        }
    }
    SMIG_CHECK(with_data == read.nr_data);
    if (with_data == 0) return {};
    end_.data_pages += with_data;
    const auto head = encode_pages_head(with_data);
    return put(SMIG_WIRE_PAGES, {head, ByteView(buffers_->wire_pfns).first(std::size_t{8} * with_data),
                                 ByteView(buffers_->data).first(kPageBytes * with_data)});
}

Result<void> ImageSender::add_zero(std::uint64_t pfn) {
    ++end_.zero_pages;
    if (!zeros_.empty() && zeros_.back().start + zeros_.back().pages == pfn) {
        ++zeros_.back().pages;
        return {};
    }
    if (zeros_.size() == SMIG_WIRE_MAX_RANGES)
        if (auto flushed = flush_zeros(); !flushed) return flushed;
    zeros_.push_back({pfn, 1});
    return {};
}

Result<void> ImageSender::flush_zeros() {
    if (zeros_.empty()) return {};
    const Bytes payload = encode_zeros(zeros_);
    zeros_.clear();
    return put(SMIG_WIRE_ZEROS, {payload});
}

}  // namespace smig
