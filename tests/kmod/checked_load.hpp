// SPDX-License-Identifier: Apache-2.0
// Processes that know what every word of their memory must be, reach it in every way the kernel has, and say
// so when it is something else.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

class CheckedLoad {
public:
    explicit CheckedLoad(int processes = 3, size_t pages_each = 1200);
    ~CheckedLoad();
    CheckedLoad(const CheckedLoad&) = delete;
    CheckedLoad& operator=(const CheckedLoad&) = delete;

    // Steps done by all together; each ends with a check.
    uint64_t steps() const;
    // Whether every thread takes a step within twenty seconds, while `meanwhile` is called again and again.
    bool runs(const std::function<void()>& meanwhile = [] {}) const;
    // How many steps of every way to reach memory found their page away while they were counted.
    void count(bool on);
    struct Reached {
        const char* way;
        uint64_t pages;
    };
    std::vector<Reached> reached() const;
    // What was wrong first, or empty.
    std::string wrong() const;
    // Of one of the processes.
    std::string pid() const { return std::to_string(children_.front()); }
    // Ends one process, whatever it is doing; `meanwhile` as above.  False: it does not end.
    bool kill_one(const std::function<void()>& meanwhile);

private:
    struct Shared;
    Shared* shared_;
    std::vector<pid_t> children_;
};
