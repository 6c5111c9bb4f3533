// SPDX-License-Identifier: Apache-2.0
// Shows on standard error how far a move is: one line that writes over itself; nothing where there is no
// terminal.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace smig {

// One line of the numbers that an agent tells, without a line end.  Missing numbers are 0.
[[nodiscard]] std::string progress_text(const nlohmann::json& numbers);

class ProgressView {
public:
    explicit ProgressView(bool terminal) : terminal_(terminal) {}
    void show(const nlohmann::json& numbers);
    // Before anything else is printed.
    void clear();

private:
    bool terminal_;
    bool on_line_ = false;
};

}  // namespace smig
