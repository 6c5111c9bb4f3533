// SPDX-License-Identifier: Apache-2.0
// A guest that is busy in every way that changes memory: processes that end with their Load.
#pragma once

#include <signal.h>
#include <sys/wait.h>

#include <functional>
#include <vector>

class Load {
public:
    Load();
    ~Load();
    Load(const Load&) = delete;
    Load& operator=(const Load&) = delete;

    // Which of the kinds of load this guest can have, for the log.
    static void describe();

private:
    void start(const std::function<void()>& forever);
    std::vector<pid_t> children_;
};
