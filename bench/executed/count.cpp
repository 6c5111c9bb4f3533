// SPDX-License-Identifier: Apache-2.0
// A plugin of QEMU's emulator: what the processors of one VM have executed, and what of it had to be
// translated first, a thousand times a second.
//
//   -plugin count.so,out=FILE     makes FILE.PID of records of three 64-bit words: CLOCK_MONOTONIC (ns),
//                                 instructions executed, instructions translated, both since the start
//
// A block that a fault leaves early counts whole.  The interface is QEMU's plugin API, version 4.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

extern "C" {

using qemu_plugin_id_t = std::uint64_t;
struct qemu_plugin_tb;
struct qemu_plugin_scoreboard;
struct qemu_plugin_u64 {
    qemu_plugin_scoreboard* score;
    std::size_t offset;
};

std::size_t qemu_plugin_tb_n_insns(const qemu_plugin_tb* block);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*done)(qemu_plugin_id_t, qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(qemu_plugin_tb* block, int operation,
                                                       qemu_plugin_u64 entry, std::uint64_t operand);
qemu_plugin_scoreboard* qemu_plugin_scoreboard_new(std::size_t bytes);
std::uint64_t qemu_plugin_u64_sum(qemu_plugin_u64 entry);

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

}  // extern "C"

namespace {

constexpr int kAdd = 0;
constexpr auto kEvery = std::chrono::milliseconds(1);

qemu_plugin_u64 executed;
std::atomic<std::uint64_t> translated;

void count_block(qemu_plugin_id_t /*id*/, qemu_plugin_tb* block) {
    const std::uint64_t instructions = qemu_plugin_tb_n_insns(block);
    translated += instructions;
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, kAdd, executed, instructions);
}

void record(int fd) {
    for (;; std::this_thread::sleep_for(kEvery)) {
        const auto now = std::chrono::steady_clock::now().time_since_epoch();
        const std::array<std::uint64_t, 3> words{
            static_cast<std::uint64_t>(std::chrono::nanoseconds(now).count()), qemu_plugin_u64_sum(executed),
            translated.load()};
        if (write(fd, words.data(), sizeof words) != sizeof words) return;
    }
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id,
                                                                          const void* /*info*/, int count,
                                                                          char** arguments) {
    if (count != 1 || std::strncmp(arguments[0], "out=", 4) != 0) {
        std::fprintf(stderr, "count.so: needs out=FILE\n");
        return 1;
    }
    const std::string path = std::string(arguments[0] + 4) + "." + std::to_string(getpid());
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        std::perror(path.c_str());
        return 1;
    }
    executed = {qemu_plugin_scoreboard_new(sizeof(std::uint64_t)), 0};
    qemu_plugin_register_vcpu_tb_trans_cb(id, count_block);
    std::thread(record, fd).detach();
    return 0;
}
