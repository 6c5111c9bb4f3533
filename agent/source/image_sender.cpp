// SPDX-License-Identifier: Apache-2.0
#include "agent/source/image_sender.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "agent/base/check.hpp"
#include "agent/base/clock.hpp"
#include "agent/page/pfn.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/frame.hpp"

namespace smig {

static_assert(std::endian::native == std::endian::little, "image bitmap words travel as they lie in memory");
static_assert(SMIG_WIRE_MAX_PAGES <= SMIG_MAX_BATCH && SMIG_WIRE_MAX_PAGES <= SMIG_BUFFER_PAGES);

struct ImageSender::Buffers {
    std::array<std::uint64_t, SMIG_WIRE_MAX_PAGES> pfns;
    std::array<std::uint8_t, SMIG_WIRE_MAX_PAGES> status;
    std::array<std::byte, std::size_t{SMIG_WIRE_MAX_PAGES} * 8> wire_pfns;
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

ImageSender::ImageSender(Device& device, FrameSink& sink, Compress compress)
    : device_(device),
      sink_(sink),
      buffers_(std::make_unique<Buffers>()),
      packer_(SMIG_WIRE_MAX_PAGES * kPageBytes),
      compression_(compress) {
    zeros_.reserve(SMIG_WIRE_MAX_RANGES);
}

ImageSender::~ImageSender() = default;

Result<void> ImageSender::get_ready(Pfn top) {
    sent_ = repeated_ = ImageBitmap(top);
    auto mapped = device_.map_buffer();
    if (!mapped) return mapped.error();
    data_ = mapped.value();
    SMIG_CHECK(data_.size() >= SMIG_WIRE_MAX_PAGES * kPageBytes);
    return {};
}

Result<void> ImageSender::put(smig_wire_type type, std::initializer_list<ByteView> pieces) {
    auto checksum = sink_.put(type, std::span(pieces.begin(), pieces.size()));
    if (!checksum) return checksum.error();
    digest_ += checksum.value();
    counts_.payload_bytes += kFrameHeaderBytes;
    for (const ByteView piece : pieces) counts_.payload_bytes += piece.size();
    return {};
}

Result<void> ImageSender::send_bitmap(smig_wire_type type, const ImageBitmap& bitmap) {
    const ByteView words = std::as_bytes(bitmap.words());
    for (std::size_t offset = 0; offset < words.size(); offset += SMIG_WIRE_BITMAP_CHUNK) {
        const std::size_t length = std::min<std::size_t>(SMIG_WIRE_BITMAP_CHUNK, words.size() - offset);
        const auto head = encode_bitmap_head(offset);
        if (auto sent = put(type, {head, words.subspan(offset, length)}); !sent) return sent;
    }
    return {};
}

Result<void> ImageSender::send_head(const smig_image_header& header, const ImageBitmap& image) {
    SMIG_CHECK(image.top().value == header.top_pfn);
    const Bytes payload = encode(to_wire(header));
    if (auto sent = put(SMIG_WIRE_IMAGE, {payload}); !sent) return sent;
    return send_bitmap(SMIG_WIRE_BITMAP, image);
}

Result<void> ImageSender::send_batch(const ImageBitmap& frames, Pfn& next) {
    SMIG_CHECK(!data_.empty());
    smig_read read{};
    next = frames.next(next);
    for (; next < frames.top() && read.nr < SMIG_WIRE_MAX_PAGES; next = frames.next(next + PageCount{1}))
        buffers_->pfns[read.nr++] = next.value;
    if (read.nr == 0) return flush();
    read.pfns = std::bit_cast<std::uint64_t>(buffers_->pfns.data());
    read.status = std::bit_cast<std::uint64_t>(buffers_->status.data());
    const std::uint64_t begun_ns = mono_ns();
    if (auto done = device_.read(read); !done) return done;
    counts_.read_ns += mono_ns() - begun_ns;

    std::uint32_t with_data = 0;
    for (std::uint32_t i = 0; i < read.nr; ++i) {
        switch (buffers_->status[i]) {
            case SMIG_PAGE_DATA:
                put_le(buffers_->wire_pfns.data() + std::size_t{8} * with_data++, buffers_->pfns[i]);
                note_sent(Pfn{buffers_->pfns[i]});
                break;
            case SMIG_PAGE_ZERO:
                if (auto added = add_zero(buffers_->pfns[i]); !added) return added;
                break;
            case SMIG_PAGE_SAME:
                ++counts_.same_pages;
                break;
            // Not in use any more, or changing: whatever of it the image has, the stop sends.
            case SMIG_PAGE_FREE:
            case SMIG_PAGE_LATER:
                break;
            default:
                return Error{Remedy::fatal,
                             "module: READ: page status " + std::to_string(buffers_->status[i])};
        }
    }
    SMIG_CHECK(with_data == read.nr_data);
    if (with_data > 0)
        if (auto sent = send_pages(with_data); !sent) return sent;
    return next < frames.top() ? Result<void>{} : flush();
}

void ImageSender::note_sent(Pfn pfn) {
    if (sent_.test(pfn) && !repeated_.test(pfn)) {
        repeated_.set(pfn);
        ++repeated_pages_;
    }
    sent_.set(pfn);
}

Result<void> ImageSender::send_pages(std::uint32_t count) {
    const ByteView pages = data_.first(kPageBytes * count);
    const ByteView pfns = ByteView(buffers_->wire_pfns).first(std::size_t{8} * count);
    const std::uint64_t begun_ns = mono_ns();
    const ByteView block = compression_.pack_next() ? packer_.pack(pages) : ByteView{};
    const std::uint64_t packed_ns = mono_ns();
    const std::uint64_t bytes_before = counts_.payload_bytes;
    const auto head = encode_pages_head(count, block.empty() ? 0 : SMIG_WIRE_PAGES_LZ4);
    if (auto sent = put(SMIG_WIRE_PAGES, {head, pfns, block.empty() ? pages : block}); !sent) return sent;
    const std::uint64_t sent_ns = mono_ns();
    counts_.data_pages += count;
    compression_.sent(pages.size(), packed_ns - begun_ns, sent_ns - begun_ns);
    // The link empties the socket's buffer also while pages are packed.
    rate_.sent(counts_.payload_bytes - bytes_before, sent_ns - begun_ns);
    return {};
}

Result<void> ImageSender::add_zero(std::uint64_t pfn) {
    ++counts_.zero_pages;
    if (!zeros_.empty() && zeros_.back().start + zeros_.back().pages == pfn) {
        ++zeros_.back().pages;
        return {};
    }
    if (zeros_.size() == SMIG_WIRE_MAX_RANGES)
        if (auto flushed = flush(); !flushed) return flushed;
    zeros_.push_back({pfn, 1});
    return {};
}

Result<void> ImageSender::flush() {
    if (zeros_.empty()) return {};
    const Bytes payload = encode_zeros(zeros_);
    zeros_.clear();
    return put(SMIG_WIRE_ZEROS, {payload});
}

}  // namespace smig
