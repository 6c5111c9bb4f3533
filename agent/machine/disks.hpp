// SPDX-License-Identifier: Apache-2.0
// Proof that the target's disks are the source's: the source flushes fresh random blocks to them, the target
// reads them back past every cache.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/base/fd.hpp"
#include "agent/base/result.hpp"

namespace smig {

// The description with a "probes" array of {disk, offset, length, xxh64}: offsets in bytes from the start of
// the whole disk.  Holds the unlinked temporary files whose blocks the probes name, so that nothing else is
// written there: keep it until the target has answered (destroying it frees the blocks).
class DiskProbes {
public:
    DiskProbes(std::string description, std::vector<Fd> files)
        : description_(std::move(description)), files_(std::move(files)) {}
    [[nodiscard]] const std::string& description() const { return description_; }

private:
    std::string description_;
    std::vector<Fd> files_;
};

// On the source, blocking (fsync): for each listed disk with a writable mounted filesystem that tells where a
// file lies (ext2/3/4, xfs), writes a random 4 KiB block into an unlinked file; for every other disk takes
// the hash of what stands at its beginning.  Error (refused): a disk that can be told from a copy by nothing,
// named.
Result<DiskProbes> flush_disk_probes(std::string_view description_json);

// On the target, blocking: opens the disks of the source's description read-only (O_DIRECT) where the source
// has them, compares identity and probes.  Reasons to refuse, by name; empty when all are the same disks. The
// text is hostile: what does not parse is a reason, and no more than 1 MiB is read for it.
Result<std::vector<std::string>> check_disks(std::string_view source_json);

}  // namespace smig
