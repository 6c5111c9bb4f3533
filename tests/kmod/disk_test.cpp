// SPDX-License-Identifier: Apache-2.0
// Stops while the kernel is writing to a disk.
#include <doctest/doctest.h>
#include <linux/magic.h>
#include <sys/statfs.h>

#include <array>
#include <cstdlib>
#include <fstream>

#include "tests/kmod/device.hpp"

namespace {

constexpr uint64_t kWords = 512;     // a block is a page
constexpr uint64_t kBlocks = 16384;  // 64 MiB: the kernel cannot have written all when tasks are frozen
const char* const kFile = "/disk/busy";

using Block = std::array<uint64_t, kWords>;

// How many stops; more on request.
int stops() {
    const char* text = std::getenv("STOPS");
    return text ? std::atoi(text) : 6;
}

void fill(Block& block, uint64_t index, uint64_t round) {
    for (uint64_t word = 0; word < kWords; word++) block[word] = index << 40 ^ round << 20 ^ word;
}

// A child that overwrites a file again and again; the kernel writes it back at once and all the time.
class DiskWriter {
public:
    DiskWriter() {
        for (Knob& knob : before_) std::ifstream(knob.path) >> knob.value;
        for (const Knob& knob : kAtOnce) std::ofstream(knob.path) << knob.value;
        child_ = fork();
        if (child_ == 0) {
            const int file = open(kFile, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
            Block block;
            for (uint64_t round = 1;; round++)
                for (uint64_t index = 0; index < kBlocks; index++) {
                    fill(block, index, round);
                    if (pwrite(file, block.data(), sizeof block, static_cast<off_t>(index * sizeof block)) !=
                        sizeof block)
                        _exit(1);
                }
        }
    }
    ~DiskWriter() {
        if (child_ > 0) end();
        for (const Knob& knob : before_) std::ofstream(knob.path) << knob.value;
        unlink(kFile);
    }
    DiskWriter(const DiskWriter&) = delete;
    DiskWriter& operator=(const DiskWriter&) = delete;

    // The signal that ended it: SIGKILL if it wrote until now.
    int end() {
        int status = 0;
        kill(child_, SIGKILL);
        waitpid(child_, &status, 0);
        child_ = 0;
        return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    }

private:
    struct Knob {
        const char* path;
        int value;
    };
    static constexpr std::array<Knob, 3> kAtOnce = {{{"/proc/sys/vm/dirty_background_bytes", 65536},
                                                     {"/proc/sys/vm/dirty_writeback_centisecs", 5},
                                                     {"/proc/sys/vm/dirty_expire_centisecs", 10}}};
    // the ratio is what counts while there are no bytes
    std::array<Knob, 3> before_ = {{{"/proc/sys/vm/dirty_background_ratio", 10},
                                    {"/proc/sys/vm/dirty_writeback_centisecs", 500},
                                    {"/proc/sys/vm/dirty_expire_centisecs", 3000}}};
    pid_t child_;
};

struct Judged {
    uint64_t blocks = 0;
    uint64_t torn = 0;  // no single write has left them so
    uint64_t lost = 0;  // older than what was written after them
};

// The file as the disk has it; a writer that was slow may have filled only a part of it.
Judged judge_file() {
    sync();
    std::ofstream("/proc/sys/vm/drop_caches") << 3 << std::flush;
    const int file = open(kFile, O_RDONLY | O_CLOEXEC);
    Judged judged;
    uint64_t first = 0, previous = 0;
    Block block, expected;
    for (; read(file, block.data(), sizeof block) == sizeof block; judged.blocks++) {
        const uint64_t round = (block[0] ^ judged.blocks << 40) >> 20;
        fill(expected, judged.blocks, round);
        judged.torn += block != expected;
        // The writer goes from the front to the end, again and again.
        if (judged.blocks == 0) first = previous = round;
        judged.lost += round > previous || round + 1 < first;
        previous = round;
    }
    close(file);
    return judged;
}

}  // namespace

TEST_CASE("stops while a disk is written, and no write is lost") {
    struct statfs disk{};
    REQUIRE(statfs("/disk", &disk) == 0);
    REQUIRE(disk.f_type == EXT4_SUPER_MAGIC);
    Ticker ticker;
    DiskWriter writer;
    for (int i = 0; i < stops(); i++) {
        Device device;
        REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
        REQUIRE(prepare(device) == 0);
        usleep(static_cast<useconds_t>(i % 7 * 50000));
        Captured captured;
        REQUIRE(captured.take(device) == 0);
        CHECK(ticker.stands_still());
        REQUIRE(device.plain(SMIG_IOC_THAW) == 0);
        CHECK(ticker.runs());
    }
    CHECK(writer.end() == SIGKILL);
    const Judged judged = judge_file();
    CHECK(judged.blocks > 256);
    CHECK(judged.torn == 0);
    CHECK(judged.lost == 0);
}

// A disk that has resumed may be looked at anew just then, by commands that the fence must not cut off: they
// hold a lock that suspending it needs.
TEST_CASE("one stop follows another at any moment") {
    constexpr useconds_t kStepUs = 3000;
    Ticker ticker;
    Device device;
    REQUIRE(device.begin(SMIG_ROLE_SOURCE) == 0);
    for (useconds_t pause = 0; pause < 30 * kStepUs; pause += kStepUs) {
        CAPTURE(pause);
        REQUIRE(prepare(device) == 0);
        Captured captured;
        REQUIRE(captured.take(device) == 0);
        REQUIRE(device.plain(SMIG_IOC_THAW) == 0);
        usleep(pause);
    }
    CHECK(ticker.runs());
}
