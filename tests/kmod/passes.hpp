// SPDX-License-Identifier: Apache-2.0
// Passes over the running guest and captures after them.
#pragma once

#include <doctest/doctest.h>

#include <bit>
#include <vector>

#include "tests/kmod/device.hpp"

inline int track(const Device& device, uint32_t flags = SMIG_TRACK_VERIFY) {
    smig_track argument{};
    argument.size = sizeof argument;
    argument.flags = flags;
    return device.call(SMIG_IOC_TRACK, argument);
}

// One pass.
struct Pass {
    smig_pass answer{};
    std::vector<uint64_t> bitmap;
    uint64_t data = 0, zero = 0, same = 0, free = 0, later = 0;

    // Begun, and read whole.
    int take(const Device& device, uint32_t flags = 0) {
        const int failed = begin(device, flags);
        return failed ? failed : read_all(device);
    }

    int begin(const Device& device, uint32_t flags = 0) {
        bitmap.assign((device.info().top_pfn + 63) / 64, 0);
        answer.size = sizeof answer;
        answer.flags = flags;
        answer.bitmap = reinterpret_cast<uint64_t>(bitmap.data());
        answer.bitmap_bytes = bitmap.size() * 8;
        return device.call(SMIG_IOC_PASS, answer);
    }

    int read_all(const Device& device) {
        uint64_t bits = 0;
        std::vector<uint64_t> pfns;
        for (size_t word = 0; word < bitmap.size(); word++) {
            bits += static_cast<uint64_t>(std::popcount(bitmap[word]));
            for (uint64_t left = bitmap[word]; left; left &= left - 1) {
                pfns.push_back(word * 64 + static_cast<uint64_t>(std::countr_zero(left)));
                if (pfns.size() < SMIG_BUFFER_PAGES) continue;
                if (int failed = read(device, pfns)) return failed;
                pfns.clear();
            }
        }
        CHECK(bits == answer.pages);
        return pfns.empty() ? 0 : read(device, pfns);
    }

    int read(const Device& device, const std::vector<uint64_t>& pfns) {
        std::vector<uint8_t> status(pfns.size());
        smig_read argument = reading(pfns, status);
        if (int failed = device.call(SMIG_IOC_READ, argument)) return failed;
        for (uint8_t one : status) {
            data += one == SMIG_PAGE_DATA;
            zero += one == SMIG_PAGE_ZERO;
            same += one == SMIG_PAGE_SAME;
            free += one == SMIG_PAGE_FREE;
            later += one == SMIG_PAGE_LATER;
        }
        return 0;
    }
};

struct Judged : Captured {
    std::vector<uint64_t> send;

    int take(const Device& device, uint32_t flags = SMIG_CAPTURE_VERIFY, uint64_t hot_pages = 0) {
        bitmap.assign((device.info().top_pfn + 63) / 64, 0);
        send = bitmap;
        answer = {};
        answer.hot_pages = hot_pages;
        answer.size = sizeof answer;
        answer.flags = flags;
        answer.handover = reinterpret_cast<uint64_t>(handover.data());
        answer.image_bitmap = reinterpret_cast<uint64_t>(bitmap.data());
        answer.image_bitmap_bytes = bitmap.size() * 8;
        answer.send_bitmap = reinterpret_cast<uint64_t>(send.data());
        answer.send_bitmap_bytes = send.size() * 8;
        return device.call(SMIG_IOC_CAPTURE, answer);
    }
};
