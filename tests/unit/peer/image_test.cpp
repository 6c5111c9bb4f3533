// SPDX-License-Identifier: Apache-2.0
// The sender's frames into the loader, and frames no sender would make.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "agent/base/check.hpp"
#include "agent/peer/image_loader.hpp"
#include "agent/source/image_sender.hpp"
#include "agent/wire/codec.hpp"
#include "agent/wire/fault.hpp"
#include "tests/sim/fake_machine.hpp"

using namespace smig;

namespace {

struct Recorded {
    smig_wire_type type{};
    Bytes payload;
    std::uint64_t checksum = 0;
};

class Recorder final : public FrameSink {
public:
    Result<std::uint64_t> put(smig_wire_type type, std::span<const ByteView> pieces) override {
        Recorded frame{type, {}, writer_.seal(type, pieces).checksum};
        for (const ByteView piece : pieces)
            frame.payload.insert(frame.payload.end(), piece.begin(), piece.end());
        frames.push_back(std::move(frame));
        return frames.back().checksum;
    }
    std::vector<Recorded> frames;

private:
    FrameWriter writer_;
};

// A captured source and a landed target.
struct Both {
    FakeMachinePtr source = make_fake_machine();
    FakeMachinePtr target = make_fake_machine();
    std::unique_ptr<Device> from = make_fake_device(*source);
    std::unique_ptr<Device> into = make_fake_device(*target);
    Recorder recorder;
    ImageSender sender{*from, recorder};
    ImageLoader loader{*into, Pfn{kFakeTop}};

    Both() {
        fill_guest(*source, 99);
        REQUIRE(from->begin(SMIG_ROLE_SOURCE).ok());
        ImageBitmap bitmap(Pfn{kFakeTop});
        smig_capture capture{};
        capture.image_bitmap = std::bit_cast<std::uint64_t>(bitmap.words().data());
        capture.image_bitmap_bytes = bitmap.bytes();
        REQUIRE(from->capture(capture).ok());
        REQUIRE(sender.send(capture.header, bitmap).ok());
        REQUIRE(into->begin(SMIG_ROLE_TARGET).ok());
    }

    Result<void> load(const Recorded& frame) {
        return loader.load({frame.type, frame.payload, frame.checksum});
    }
    Result<void> load_all() {
        for (const Recorded& frame : recorder.frames)
            if (auto loaded = load(frame); !loaded) return loaded;
        return {};
    }
    Result<smig_wire_ready> finish(const smig_wire_image_end& end) {
        const Bytes payload = encode(end);
        return loader.finish({SMIG_WIRE_IMAGE_END, payload, 0});
    }
    Recorded& first(smig_wire_type type) {
        const auto found = std::ranges::find(recorder.frames, type, &Recorded::type);
        SMIG_CHECK(found != recorder.frames.end());
        return *found;
    }
};

void check_refused(const Result<void>& result, WireFault fault) {
    REQUIRE_FALSE(result.ok());
    CHECK_MESSAGE(result.error().text.starts_with(wire_fault_name(fault)), result.error().text);
}

}  // namespace

TEST_CASE("an image arrives page for page, and READY says what IMAGE_END said") {
    Both both;
    REQUIRE(both.load_all().ok());
    const smig_wire_image_end end = both.sender.end();
    const auto ready = both.finish(end);
    REQUIRE(ready.ok());
    CHECK(ready.value().digest == end.digest);
    CHECK(end.zero_pages > 0);
    CHECK(end.data_pages > 0);
    CHECK(differing_pages(*both.source, *both.target) == 0);
}

TEST_CASE("all-zero pages travel as ranges, frames of pages are full but the last of a run") {
    Both both;
    std::uint64_t bytes = 0;
    for (const Recorded& frame : both.recorder.frames) {
        bytes += kFrameHeaderBytes + frame.payload.size();
        if (frame.type == SMIG_WIRE_PAGES)
            CHECK(frame.payload.size() <= std::size_t{8} + std::size_t{256} * 4104);
    }
    CHECK(bytes == both.sender.payload_bytes());
    CHECK(bytes < both.sender.end().data_pages * 4104 + 64 * 1024);
    CHECK(std::ranges::count(both.recorder.frames, SMIG_WIRE_ZEROS, &Recorded::type) == 1);
}

TEST_CASE("a frame that is missing, doubled or exchanged is noticed at the end") {
    Both both;
    const smig_wire_image_end end = both.sender.end();
    SUBCASE("missing") {
        both.recorder.frames.pop_back();
    }
    SUBCASE("doubled") {
        both.recorder.frames.push_back(both.recorder.frames.back());
    }
    SUBCASE("another content with the same page numbers") {
        both.recorder.frames.back().checksum ^= 1;
    }
    REQUIRE(both.load_all().ok());
    CHECK_FALSE(both.finish(end).ok());
}

TEST_CASE("an end that lies about its counts is no end") {
    Both both;
    REQUIRE(both.load_all().ok());
    smig_wire_image_end end = both.sender.end();
    ++end.data_pages;
    CHECK_FALSE(both.finish(end).ok());
}

TEST_CASE("a page that the bitmap did not announce is not placed") {
    Both both;
    std::uint64_t outside = 0;
    while (both.source->in_image[outside]) ++outside;
    SUBCASE("PAGES") {
        Recorded& pages = both.first(SMIG_WIRE_PAGES);
        pages.payload.resize(8 + 8 + 4096);
        put_le<std::uint32_t>(pages.payload.data(), 1);
        put_le<std::uint64_t>(pages.payload.data() + 8, outside);
        check_refused(both.load_all(), WireFault::bad_range);
    }
    SUBCASE("ZEROS") {
        const std::array<smig_wire_range, 1> range{{{outside, 1}}};
        both.first(SMIG_WIRE_ZEROS).payload = encode_zeros(range);
        check_refused(both.load_all(), WireFault::bad_range);
    }
    CHECK_FALSE(both.target->placed[outside]);
}

TEST_CASE("parts of an image come in order") {
    Both both;
    SUBCASE("pages before the bitmap") {
        REQUIRE(both.load(both.first(SMIG_WIRE_IMAGE)).ok());
        check_refused(both.load(both.first(SMIG_WIRE_PAGES)), WireFault::unexpected);
    }
    SUBCASE("the bitmap before the header") {
        check_refused(both.load(both.first(SMIG_WIRE_BITMAP)), WireFault::unexpected);
    }
    SUBCASE("a second header") {
        REQUIRE(both.load(both.first(SMIG_WIRE_IMAGE)).ok());
        check_refused(both.load(both.first(SMIG_WIRE_IMAGE)), WireFault::unexpected);
    }
    SUBCASE("the end before the pages") {
        CHECK_FALSE(both.finish(both.sender.end()).ok());
    }
}

TEST_CASE("a bitmap that is not the header's") {
    Both both;
    Recorded& bitmap = both.first(SMIG_WIRE_BITMAP);
    REQUIRE(both.load(both.first(SMIG_WIRE_IMAGE)).ok());
    SUBCASE("other count") {
        bitmap.payload[8] ^= std::byte{1};
        check_refused(both.load(bitmap), WireFault::bad_count);
    }
    SUBCASE("beyond the top") {
        bitmap.payload.back() |= std::byte{0x80};
        check_refused(both.load(bitmap), WireFault::bad_range);
    }
    SUBCASE("too long") {
        bitmap.payload.resize(bitmap.payload.size() + 8);
        check_refused(both.load(bitmap), WireFault::bad_range);
    }
    SUBCASE("a hole") {
        put_le<std::uint64_t>(bitmap.payload.data(), 8);
        check_refused(both.load(bitmap), WireFault::bad_range);
    }
    SUBCASE("in two parts it is the same") {
        const Bytes whole = bitmap.payload;
        Recorded part{SMIG_WIRE_BITMAP, Bytes(whole.begin(), whole.begin() + 8 + 64), 0};
        REQUIRE(both.load(part).ok());
        part.payload.assign(8, std::byte{});
        put_le<std::uint64_t>(part.payload.data(), 64);
        part.payload.insert(part.payload.end(), whole.begin() + 8 + 64, whole.end());
        CHECK(both.load(part).ok());
        CHECK(both.target->state == SMIG_STATE_LANDED);
    }
}

TEST_CASE("an image larger than this machine is refused") {
    Both both;
    ImageLoader small(*both.into, Pfn{kFakeTop - 1});
    const Recorded& header = both.first(SMIG_WIRE_IMAGE);
    const auto result = small.load({header.type, header.payload, header.checksum});
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().remedy == Remedy::refused);
}
