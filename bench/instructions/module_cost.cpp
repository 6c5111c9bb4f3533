// SPDX-License-Identifier: Apache-2.0
// module_cost MIB: what the module does for a page, in nanoseconds of this guest's clock; prints one JSON
// object.
//
// Runs as root in a guest whose clock counts its instructions (bench/instructions/run), so a nanosecond is
// one.  Both roles, one after the other, with `MIB` of random memory in a process: passes, reads, the stop's
// search and its copies; then the target's placing of pages.  Nothing is moved.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <map>
#include <string>

#include "tests/kmod/device.hpp"
#include "tests/lab/random_fill.hpp"

namespace {

constexpr size_t kPage = 4096;

std::map<std::string, double> figures;

double now_ns() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

void must(int failed, const char* what) {
    if (failed == 0) return;
    std::fprintf(stderr, "module_cost: %s: errno %d\n", what, failed);
    std::exit(1);
}

template <class Call>
double timed(const char* what, Call call) {
    const double begun = now_ns();
    must(call(), what);
    return now_ns() - begun;
}

// Random pages of another process: whoever captures must lock all of its own memory, and locked pages count
// as the kernel's.
class Memory {
public:
    explicit Memory(size_t pages) {
        int there[2], back[2];
        must(pipe(there) == 0 && pipe(back) == 0 ? 0 : errno, "pipe");
        if (fork() == 0) {
            close(there[1]);  // its end is the child's end
            close(back[0]);
            serve(pages, there[0], back[1]);
        }
        ask_ = there[1];
        answer_ = back[0];
        touch();
    }
    // Writes a word of every page; nanoseconds a page.
    double touch() {
        double taken = 0;
        must(write(ask_, "t", 1) == 1 && read(answer_, &taken, sizeof taken) == sizeof taken ? 0 : EIO,
             "touch");
        return taken;
    }

private:
    [[noreturn]] static void serve(size_t pages, int asked, int answered) {
        void* at = mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) _exit(1);
        madvise(at, pages * kPage, MADV_NOHUGEPAGE);
        auto* words = static_cast<volatile uint64_t*>(at);
        lab::Words random(1);
        for (size_t i = 0; i < pages * kPage / 8; i++) words[i] = random.next();
        for (char byte; read(asked, &byte, 1) == 1;) {
            const double begun = now_ns();
            for (size_t page = 0; page < pages; page++) words[page * kPage / 8] = words[page * kPage / 8] + 1;
            const double taken = (now_ns() - begun) / static_cast<double>(pages);
            if (write(answered, &taken, sizeof taken) != sizeof taken) break;
        }
        _exit(0);
    }

    int ask_ = -1, answer_ = -1;
};

std::vector<uint64_t> frames_in(const std::vector<uint64_t>& bitmap) {
    std::vector<uint64_t> pfns;
    for (size_t word = 0; word < bitmap.size(); word++)
        for (size_t bit = 0; bit < 64; bit++)
            if (bitmap[word] >> bit & 1) pfns.push_back(word * 64 + bit);
    return pfns;
}

// Reads them all into the module's buffer; adds up under `prefix`.
void read_all(const Device& device, const std::vector<uint64_t>& pfns, const std::string& prefix) {
    double spent = 0;
    uint64_t data = 0, zero = 0, same = 0;
    for (size_t at = 0; at < pfns.size(); at += SMIG_BUFFER_PAGES) {
        const size_t count = std::min<size_t>(SMIG_BUFFER_PAGES, pfns.size() - at);
        std::vector<uint8_t> status(count);
        smig_read read = reading({&pfns[at], count}, status);
        spent += timed("READ", [&] { return device.call(SMIG_IOC_READ, read); });
        for (const uint8_t one : status) {
            data += one == SMIG_PAGE_DATA;
            zero += one == SMIG_PAGE_ZERO;
            same += one == SMIG_PAGE_SAME;
        }
    }
    const auto pages = static_cast<double>(pfns.size());
    figures[prefix + "_pages"] = pages;
    figures[prefix + "_data"] = static_cast<double>(data);
    figures[prefix + "_zero"] = static_cast<double>(zero);
    figures[prefix + "_same"] = static_cast<double>(same);
    figures[prefix + "_per_page"] = pages == 0 ? 0 : spent / pages;
}

std::vector<uint64_t> pass(const Device& device, const std::string& prefix) {
    std::vector<uint64_t> bitmap((device.info().top_pfn + 63) / 64);
    smig_pass argument{};
    argument.size = sizeof argument;
    argument.bitmap = reinterpret_cast<uint64_t>(bitmap.data());
    argument.bitmap_bytes = bitmap.size() * 8;
    figures[prefix + "_begin"] = timed("PASS", [&] { return device.call(SMIG_IOC_PASS, argument); });
    figures[prefix + "_begin_per_frame_in_use"] =
        figures[prefix + "_begin"] / static_cast<double>(argument.in_use_pages);
    figures[prefix + "_kernel"] = static_cast<double>(argument.kernel_us) * 1e3;
    figures[prefix + "_user"] = static_cast<double>(argument.user_us) * 1e3;
    figures[prefix + "_user_entries"] = static_cast<double>(argument.user_ptes);
    figures["in_use"] = static_cast<double>(argument.in_use_pages);
    return frames_in(bitmap);
}

void as_source(size_t mib) {
    Memory memory(mib << 8);
    Device device;
    must(device.begin(SMIG_ROLE_SOURCE), "BEGIN");
    figures["prepare"] = timed("PREPARE", [&] { return prepare(device); });
    smig_track track{};
    track.size = sizeof track;
    figures["track"] = timed("TRACK", [&] { return device.call(SMIG_IOC_TRACK, track); });
    read_all(device, pass(device, "first_pass"), "first_read");
    figures["first_write_per_page"] = memory.touch();
    figures["later_write_per_page"] = memory.touch();
    read_all(device, pass(device, "second_pass"), "second_read");
    memory.touch();

    std::vector<uint64_t> send((device.info().top_pfn + 63) / 64);
    Captured captured;
    captured.answer.size = sizeof captured.answer;
    std::vector<uint64_t> image(send.size());
    smig_capture& answer = captured.answer;
    answer.handover = reinterpret_cast<uint64_t>(captured.handover.data());
    answer.image_bitmap = reinterpret_cast<uint64_t>(image.data());
    answer.image_bitmap_bytes = image.size() * 8;
    answer.send_bitmap = reinterpret_cast<uint64_t>(send.data());
    answer.send_bitmap_bytes = send.size() * 8;
    must(mlockall(MCL_CURRENT | MCL_FUTURE), "mlockall");
    must(device.call(SMIG_IOC_CAPTURE, answer), "CAPTURE");
    const auto step = [&](smig_step which) { return static_cast<double>(answer.source_us[which]) * 1e3; };
    figures["stop_find"] = step(SMIG_STEP_FIND);
    figures["stop_find_kernel"] = static_cast<double>(answer.find_kernel_us) * 1e3;
    figures["stop_find_user"] = static_cast<double>(answer.find_user_us) * 1e3;
    figures["stop_copy"] = step(SMIG_STEP_COPY);
    figures["stop_copied_pages"] = static_cast<double>(answer.shadow_used);
    figures["stop_freeze"] = step(SMIG_STEP_FREEZE_TASKS) + step(SMIG_STEP_FREEZE_KTHREADS);
    figures["stop_devices"] = step(SMIG_STEP_SUSPEND_DEVICES) + step(SMIG_STEP_SUSPEND_NOIRQ);
    read_all(device, frames_in(send), "stop_read");
    must(device.plain(SMIG_IOC_THAW), "THAW");

    must(device.call(SMIG_IOC_TRACK, track), "TRACK again");
    smig_owe owe{};
    owe.size = sizeof owe;
    const double spent = timed("OWE", [&] { return device.call(SMIG_IOC_OWE, owe); });
    figures["owed_pages"] = static_cast<double>(owe.owed_pages);
    figures["owe_per_page"] = spent / static_cast<double>(owe.owed_pages);
}

void as_target(size_t mib) {
    Device device;
    must(device.begin(SMIG_ROLE_TARGET), "BEGIN");
    smig_land land{};
    land.size = sizeof land;
    figures["land"] = timed("LAND", [&] { return device.call(SMIG_IOC_LAND, land); });
    figures["land_held_pages"] = static_cast<double>(land.held_pages);
    // the image: so many frames from 64 MiB on
    const smig_info info = device.info();
    const uint64_t first = (64 << 20) / kPage, count = std::min<uint64_t>(mib << 8, land.held_pages / 2);
    std::vector<uint64_t> bits((info.top_pfn + 63) / 64, ~uint64_t{0}), pfns;
    for (uint64_t pfn = first; pfn < first + count; pfn++) {
        bits[pfn / 64] &= ~(uint64_t{1} << (pfn % 64));
        pfns.push_back(pfn);
    }
    smig_vacant vacant{};
    vacant.size = sizeof vacant;
    vacant.bitmap = reinterpret_cast<uint64_t>(bits.data());
    vacant.bitmap_bytes = bits.size() * 8;
    figures["vacant"] = timed("VACANT", [&] { return device.call(SMIG_IOC_VACANT, vacant); });
    const std::vector<char> data(SMIG_BUFFER_PAGES * kPage, 1);
    double spent = 0;
    for (size_t at = 0; at < pfns.size(); at += SMIG_BUFFER_PAGES) {
        smig_place place{};
        place.size = sizeof place;
        place.pfns = reinterpret_cast<uint64_t>(&pfns[at]);
        place.data = reinterpret_cast<uint64_t>(data.data());
        place.nr = static_cast<uint32_t>(std::min<size_t>(SMIG_BUFFER_PAGES, pfns.size() - at));
        spent += timed("PLACE", [&] { return device.call(SMIG_IOC_PLACE, place); });
    }
    figures["place_pages"] = static_cast<double>(pfns.size());
    figures["place_per_page"] = spent / static_cast<double>(pfns.size());
}

}  // namespace

int main(int argc, char** argv) {
    const size_t mib = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 64;
    if (mib == 0) return 2;
    as_source(mib);
    as_target(mib);
    std::string out;
    for (const auto& [name, value] : figures) {
        char text[128];
        std::snprintf(text, sizeof text, "%s\"%s\": %.1f", out.empty() ? "" : ", ", name.c_str(), value);
        out += text;
    }
    std::printf("{%s}\n", out.c_str());
    return 0;
}
