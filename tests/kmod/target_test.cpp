// SPDX-License-Identifier: Apache-2.0
// The target's half: images that contradict themselves, and jumps that fail at every step.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "tests/kmod/device.hpp"

namespace {

// A header as this kernel's own source would make it, and an image of the three frames it names.
struct TinyImage {
    smig_image image{};
    std::vector<uint64_t> bitmap;
    std::vector<uint64_t> pfns;
    uint64_t handover_magic = 0;

    // Takes a real capture, for its header; the guest goes on.
    TinyImage() {
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
        REQUIRE(prepare(device) == 0);
        Captured captured;
        REQUIRE(captured.take(device) == 0);
        const smig_image_header& header = captured.answer.header;
        std::vector<char> page(4096);
        uint64_t pfn = header.handover_pfn;
        uint8_t status = 0;
        smig_read read = reading({&pfn, 1}, {&status, 1}, page.data());
        REQUIRE(device.call(SMIG_IOC_READ, read) == 0);
        std::memcpy(&handover_magic, page.data(), 8);
        REQUIRE(device.plain(SMIG_IOC_THAW) == 0);

        pfns = {header.resume_pa >> 12, header.cr3 >> 12, header.handover_pfn};
        std::sort(pfns.begin(), pfns.end());
        bitmap.assign(captured.bitmap.size(), 0);
        for (uint64_t one : pfns) set(one);
        image.size = sizeof image;
        image.header = header;
        image.header.image_pages = pfns.size();
        image.header.zero_pages = 0;
        image.image_bitmap = reinterpret_cast<uint64_t>(bitmap.data());
        image.image_bitmap_bytes = bitmap.size() * 8;
    }
    uint64_t pfn_outside() const {
        uint64_t pfn = pfns[0];
        while (std::find(pfns.begin(), pfns.end(), pfn) != pfns.end()) pfn++;
        return pfn;
    }
    void set(uint64_t pfn) { bitmap[pfn / 64] |= 1ULL << (pfn % 64); }

    int place(const Device& device, const std::vector<uint64_t>& which, uint32_t flags = 0) const {
        std::vector<char> data(which.size() * 4096, 1);
        for (size_t i = 0; i < which.size(); i++)
            if (which[i] == image.header.handover_pfn) std::memcpy(&data[i * 4096], &handover_magic, 8);
        smig_place argument{};
        argument.size = sizeof argument;
        argument.flags = flags;
        argument.pfns = reinterpret_cast<uint64_t>(which.data());
        argument.data = reinterpret_cast<uint64_t>(data.data());
        argument.nr = static_cast<uint32_t>(which.size());
        return device.call(SMIG_IOC_PLACE, argument);
    }
};

// Frames that will stay empty: all but those of the image, or none.
int vacant(const Device& device, const TinyImage& tiny, bool all = true) {
    std::vector<uint64_t> bits(tiny.bitmap.size());
    for (size_t i = 0; all && i < bits.size(); i++) bits[i] = ~tiny.bitmap[i];
    smig_vacant argument{};
    argument.size = sizeof argument;
    argument.bitmap = reinterpret_cast<uint64_t>(bits.data());
    argument.bitmap_bytes = bits.size() * 8;
    return device.call(SMIG_IOC_VACANT, argument);
}

int land(const Device& device) {
    smig_land argument{};
    argument.size = sizeof argument;
    const int ret = device.call(SMIG_IOC_LAND, argument);
    if (ret == 0) {
        CHECK(argument.held_pages > 0);
        CHECK(argument.held_pages + argument.footprint_pages == device.info().ram_pages);
    }
    return ret;
}

int jump(const Device& device, uint32_t* failed_step = nullptr) {
    smig_jump argument{};
    argument.size = sizeof argument;
    const int ret = device.call(SMIG_IOC_JUMP, argument);
    if (failed_step) *failed_step = argument.failed_step;
    return ret;
}

}  // namespace

TEST_CASE("an image header that contradicts this machine or its bitmap is EILSEQ") {
    TinyImage tiny;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_TARGET) == 0);
    CHECK(vacant(device, tiny) == EBADFD);  // LAND comes first
    REQUIRE(land(device) == 0);
    CHECK(device.call(SMIG_IOC_IMAGE, tiny.image) == EBADFD);  // then VACANT
    REQUIRE(vacant(device, tiny) == 0);

    const auto wrong = [&](auto change) {
        smig_image image = tiny.image;
        change(image);
        return device.call(SMIG_IOC_IMAGE, image);
    };
    CHECK(wrong([](smig_image& i) { i.header.magic++; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.top_pfn++; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.page_table_levels = 3; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.vcpus = 100; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.release[0]++; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.version[0]++; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.image_pages++; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.zero_pages = 100; }) == EILSEQ);
    CHECK(wrong([&](smig_image& i) {
              i.header.resume_pa = tiny.pfn_outside() << 12 | (i.header.resume_pa & 4095);
          }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.resume_va++; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.resume_va &= 0xffff; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.cr3++; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.header.handover_pfn = ~0ULL; }) == EILSEQ);
    CHECK(wrong([](smig_image& i) { i.image_bitmap_bytes += 8; }) == EINVAL);
    CHECK(wrong([](smig_image& i) { i.image_bitmap_bytes = 0; }) == EINVAL);
    CHECK(wrong([](smig_image& i) { i.image_bitmap = 8; }) == EFAULT);

    TinyImage outside = tiny;
    outside.image.image_bitmap = reinterpret_cast<uint64_t>(outside.bitmap.data());
    outside.set(0xa0);  // the hole below 1 MiB is never System RAM
    outside.image.header.image_pages++;
    CHECK(device.call(SMIG_IOC_IMAGE, outside.image) == EILSEQ);
    TinyImage occupied = tiny;
    occupied.image.image_bitmap = reinterpret_cast<uint64_t>(occupied.bitmap.data());
    occupied.set(tiny.pfn_outside());  // was to stay empty
    occupied.image.header.image_pages++;
    CHECK(device.call(SMIG_IOC_IMAGE, occupied.image) == EILSEQ);

    CHECK(device.call(SMIG_IOC_IMAGE, tiny.image) == 0);
    CHECK(device.state() == SMIG_STATE_LANDED);
}

TEST_CASE("a source that keeps too few frames empty is ENOSPC, one that keeps those of LAND is not") {
    TinyImage tiny;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_TARGET) == 0);
    smig_land argument{};
    argument.size = sizeof argument;
    REQUIRE(device.call(SMIG_IOC_LAND, argument) == 0);
    CHECK(vacant(device, tiny, false) == ENOSPC);
    CHECK(device.state() == SMIG_STATE_TARGET);
    const smig_info info = device.info();
    // whichever they are: the lowest, then the highest
    for (const bool lowest : {true, false}) {
        std::vector<uint64_t> frames, bits(tiny.bitmap.size());
        for (uint32_t r = 0; r < info.nr_ranges; r++)
            for (uint64_t i = 0; i < info.ranges[r].count; i++) frames.push_back(info.ranges[r].start + i);
        if (!lowest) std::reverse(frames.begin(), frames.end());
        REQUIRE(argument.vacant_pages < frames.size());
        for (uint64_t i = 0; i < argument.vacant_pages; i++) bits[frames[i] / 64] |= 1ULL << (frames[i] % 64);
        smig_vacant empty{};
        empty.size = sizeof empty;
        empty.bitmap = reinterpret_cast<uint64_t>(bits.data());
        empty.bitmap_bytes = bits.size() * 8;
        CHECK(device.call(SMIG_IOC_VACANT, empty) == 0);
        empty.bitmap_bytes -= 8;
        CHECK(device.call(SMIG_IOC_VACANT, empty) == EINVAL);
    }
}

TEST_CASE("pages may come before the image is known, and again when they have changed") {
    TinyImage tiny;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_TARGET) == 0);
    REQUIRE(land(device) == 0);
    REQUIRE(vacant(device, tiny) == 0);
    CHECK(tiny.place(device, {tiny.pfn_outside()}) == EINVAL);  // was to stay empty
    REQUIRE(tiny.place(device, tiny.pfns) == 0);
    CHECK(jump(device) == ENODATA);
    REQUIRE(device.call(SMIG_IOC_IMAGE, tiny.image) == 0);
    CHECK(tiny.place(device, {tiny.pfns[0]}) == 0);
    fail_at(SMIG_STEP_NOTIFY);
    CHECK(jump(device) == EIO);  // complete: it got as far as the first step
}

TEST_CASE("pages outside the image are EINVAL, an incomplete image does not jump") {
    TinyImage tiny;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_TARGET) == 0);
    REQUIRE(land(device) == 0);
    CHECK(tiny.place(device, tiny.pfns) == EBADFD);
    REQUIRE(vacant(device, tiny) == 0);
    REQUIRE(device.call(SMIG_IOC_IMAGE, tiny.image) == 0);
    CHECK(jump(device) == ENODATA);
    CHECK(tiny.place(device, {tiny.pfn_outside()}) == EINVAL);
    CHECK(tiny.place(device, {~0ULL}) == EINVAL);
    CHECK(tiny.place(device, {}) == EINVAL);
    CHECK(tiny.place(device, tiny.pfns, 2) == EINVAL);
    CHECK(tiny.place(device, {tiny.pfns[0], tiny.pfns[1]}) == 0);
    CHECK(jump(device) == ENODATA);
    CHECK(tiny.place(device, tiny.pfns) == 0);
    CHECK(tiny.place(device, tiny.pfns, SMIG_PLACE_ZERO) == 0);  // the newer contents count
    CHECK(jump(device) == EILSEQ);                               // the hand-over page lost its mark
}

TEST_CASE("a failure at any step of the jump is named and undone, and the image may be placed anew") {
    TinyImage tiny;
    Ticker ticker;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_TARGET) == 0);
    REQUIRE(land(device) == 0);
    for (uint32_t step = SMIG_STEP_NOTIFY; step <= SMIG_STEP_JUMP; step++) {
        if (step == SMIG_STEP_FIND || step == SMIG_STEP_COPY) continue;  // the source's
        CAPTURE(step);
        REQUIRE(vacant(device, tiny) == 0);
        REQUIRE(device.call(SMIG_IOC_IMAGE, tiny.image) == 0);
        REQUIRE(tiny.place(device, tiny.pfns) == 0);
        fail_at(step);
        uint32_t failed_step = 0;
        CHECK(jump(device, &failed_step) == EIO);
        CHECK(failed_step == step + 1);
        CHECK(ticker.runs());
    }
}

TEST_CASE("after another LAND nothing is left of what was placed before") {
    TinyImage tiny;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_TARGET) == 0);
    REQUIRE(land(device) == 0);
    REQUIRE(vacant(device, tiny) == 0);
    REQUIRE(device.call(SMIG_IOC_IMAGE, tiny.image) == 0);
    REQUIRE(tiny.place(device, tiny.pfns) == 0);
    REQUIRE(land(device) == 0);
    REQUIRE(vacant(device, tiny) == 0);
    REQUIRE(device.call(SMIG_IOC_IMAGE, tiny.image) == 0);
    CHECK(jump(device) == ENODATA);  // no page has come
    REQUIRE(tiny.place(device, tiny.pfns, SMIG_PLACE_ZERO) == 0);
    CHECK(jump(device) == EILSEQ);  // the hand-over page is zero now
}

TEST_CASE("what LAND holds comes back when the file is closed") {
    const uint64_t before = free_pages();
    {
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_TARGET) == 0);
        REQUIRE(land(device) == 0);
        REQUIRE(land(device) == 0);
    }
    CHECK(free_pages() + 2000 > before);
}
