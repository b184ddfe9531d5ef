// The blocks of a grid one after the other, the warps of a block in turns.
#include <random>

#include "collectives.hpp"
#include "compute.hpp"
#include "products.hpp"

namespace {

// A block with more branches than this is taken for one that never ends.
constexpr uint64_t kMostBranches = uint64_t(1) << 24;
// Turns of the warps that wait for a barrier in memory while nothing changes.
constexpr int kMostIdleTurns = 8;

bool tell(Machine& m, const Instruction& i, const Operand* in, const Operand* out) {
  switch (i.operation) {
    case SHUFFLE: shuffle(m, i, in, out); break;
    case BALLOT: ballot(m, in, out); break;
    case REDUCE: reduce(m, i, in, out); break;
    case ELECT: elect(m, out); break;
  }
  return true;
}

bool step(Machine& m, const Instruction& i, uint32_t mask) {
  const Operand *out = m.operands + i.first, *in = out + i.outputs;
  if (mask != ~0u && i.operation != MEET && meets(i.operation)) {
    return m.fail("threads of a warp are missing where all have to take part");
  }
  switch (i.operation) {
    case MEET: case SHUFFLE: case BALLOT: case REDUCE: case ELECT:
      return names_all(m, i, in) && tell(m, i, in, out);
    case LOAD_GLOBAL: case LOAD_SHARED: return load(m, i, in, out, mask);
    case STORE_GLOBAL: case STORE_SHARED: return store(m, i, in, mask);
    case ADD_SHARED: return add_shared(m, in, out, mask);
    case LOAD_MATRIX: return load_matrix(m, i, in, out);
    case STORE_MATRIX: return store_matrix(m, i, in);
    case COPY: return copy(m, i, in, mask);
    case COMMIT_COPIES: commit_copies(m); return true;
    case WAIT_COPIES: return wait_copies(m, i.detail[0]);
    case MMA: return mma(m, i, in, out);
    case FENCE_PRODUCTS: ++m.self().product_fences; return true;
    case WGMMA: return wgmma(m, i, in, out);
    case COMMIT_PRODUCTS: commit_products(m); return true;
    case WAIT_PRODUCTS: wait_products(m, i.detail[0]); return true;
    case FENCE_PROXY: fence_proxy(m); return true;
    case INIT_BARRIER: return init_barrier(m, in, mask);
    case INVALIDATE_BARRIER: return invalidate_barrier(m, in, mask);
    case EXPECT_BYTES: return expect_bytes(m, in, mask);
    case TRY_WAIT: return try_wait(m, in, out, mask);
    case COPY_TILE: return copy_tile(m, in, mask);
    default: return compute(m, i, in, out, mask);
  }
}

uint32_t where_true(Machine& m, const Instruction& i, uint32_t mask) {
  if (i.predicate < 0) return mask;
  const uint8_t* p = m.file() + size_t(i.predicate) * kLanes;
  uint32_t to = 0;
  FOR_ACTIVE(mask) to |= uint32_t((p[lane] & 1) != i.negated) << lane;
  return to;
}

// brx.idx: the first operand says which of the others to go to.
bool branch_by_table(Machine& m, const Instruction& i, uint32_t mask, uint32_t chosen) {
  Warp& self = m.self();
  Lanes index;
  read(m, m.operands[i.first], index);
  FOR_ACTIVE(mask) {
    self.next[lane] = m.at + 1;
    if (!(chosen >> lane & 1)) continue;
    if (index[lane] >= uint64_t(i.inputs - 1)) return m.fail("a branch by no entry of its table");
    self.next[lane] = uint32_t(m.operands[i.first + 1 + index[lane]].value);
  }
  if (++m.branches > kMostBranches) return m.fail("this block does not end");
  return m.error.empty();
}

// Run the current warp until it waits, ends or fails. Of threads that went different ways, those
// with the lowest address go first; an instruction that they meet at is run when all are there.
void run_warp(Machine& m) {
  Warp& self = m.self();
  self.state = Warp::RUNS;
  uint32_t waiting = 0;
  while (self.alive) {
    if (waiting == self.alive) {
      uint32_t place = self.next[__builtin_ctz(self.alive)];
      FOR_ACTIVE(self.alive) if (self.next[lane] != place) {
        m.fail("threads of a warp wait for each other at different places");
        return;
      }
      waiting = 0;
    }
    uint32_t at = ~0u, mask = 0;
    FOR_ACTIVE(self.alive & ~waiting) at = std::min(at, self.next[lane]);
    FOR_ACTIVE(self.alive & ~waiting) if (self.next[lane] == at) mask |= 1u << lane;
    // Together they need not be looked for again until they part.
    for (bool together = mask == self.alive, first = true; first || together; first = false) {
      const Instruction& i = m.code[m.at = at];
      if (!together && meets(i.operation)) {
        waiting |= mask;
        break;
      }
      uint32_t chosen = where_true(m, i, mask);
      ++at;
      switch (i.operation) {
        case BRANCH:
          if (++m.branches > kMostBranches) {
            m.fail("this block does not end");
            return;
          }
          if (chosen == mask) {
            at = i.target;
          } else if (chosen) {
            if (i.detail[0]) {
              m.fail("threads of a warp part at a bra.uni");
              return;
            }
            FOR_ACTIVE(mask) self.next[lane] = chosen >> lane & 1 ? i.target : at;
            together = false;
            continue;
          }
          if (self.waits_in_vain) self.state = Warp::SPINS;
          self.waits_in_vain = false;
          break;
        case BRANCH_TABLE:
          if (!branch_by_table(m, i, mask, chosen)) return;
          together = false;
          continue;
        case RETURN:
          self.alive &= ~chosen;
          together = false;
          break;
        case BARRIER:
          if (chosen != mask) {
            m.fail("threads of a warp are missing at a barrier");
            return;
          }
          self.state = Warp::AT_BARRIER;
          break;
        default:
          // What a step reads and writes may fail too.
          if (chosen && (!step(m, i, chosen) || !m.error.empty())) return;
      }
      bool stops = self.state != Warp::RUNS;
      if (!together || stops) FOR_ACTIVE(mask) self.next[lane] = at;
      if (stops) return;
    }
  }
  self.state = Warp::ENDED;
}

void start_block(Machine& m) {
  std::fill(m.shared.begin(), m.shared.end(), 0xff);  // NaN, and far outside of everything
  std::fill(m.registers.begin(), m.registers.end(), 0xff);
  std::fill(m.track.begin(), m.track.end(), Track{});
  Warp warp;
  if (m.has_products) {
    warp.summed.resize(m.register_bytes);
    warp.read_as_left.resize(m.register_bytes);
    warp.touched.resize(m.register_bytes);
  }
  m.warps.assign(m.warp_count, warp);
  m.barriers.clear();
  m.landings.clear();
  m.epoch = 1;
  m.branches = 0;
}

void run_block(Machine& m, std::mt19937* random) {
  std::vector<int> turns(m.warp_count);
  for (int n = 0; n < m.warp_count; ++n) turns[n] = n;
  start_block(m);
  for (int idle = 0; m.error.empty();) {
    if (random) std::shuffle(turns.begin(), turns.end(), *random);
    m.moved = false;
    for (int turn : turns) {
      m.warp = turn;
      Warp::State before = m.self().state;
      if (before == Warp::AT_BARRIER || before == Warp::ENDED) continue;
      run_warp(m);
      if (!m.error.empty()) return;
      if (m.self().state != Warp::SPINS) m.moved = true;
    }
    int ended = 0, arrived = 0;
    for (const Warp& warp : m.warps) {
      ended += warp.state == Warp::ENDED;
      arrived += warp.state == Warp::AT_BARRIER;
    }
    if (ended == m.warp_count) return;
    idle = m.moved ? 0 : idle + 1;
    if (arrived && arrived + ended == m.warp_count) {
      for (Warp& warp : m.warps) {
        if (warp.state == Warp::AT_BARRIER) warp.state = Warp::RUNS;
      }
      ++m.epoch;
      idle = 0;
    } else if (idle > kMostIdleTurns) {
      m.fail("nobody will end the wait here");
    }
  }
}

}  // namespace

// Returns 0, or 1 with what went wrong in `message`. seed: of the order of blocks, and of warps
// between barriers; 0 for their numbers.
extern "C" int run_grid(const Instruction* code, int length, const Operand* operands,
                        const uint8_t* parameters, int register_bytes, int warp_count,
                        const uint32_t* grid, uint32_t shared, const Region* regions,
                        int region_count, uint32_t seed, char* message, int room) {
  Machine m{};
  m.code = code, m.length = length, m.operands = operands, m.parameters = parameters;
  m.register_bytes = register_bytes, m.warp_count = warp_count;
  m.grid = {grid[0], grid[1], grid[2]};
  m.regions.assign(regions, regions + region_count);
  m.grain = 1;
  for (int n = 0; n < length; ++n) {
    const Instruction& i = code[n];
    m.has_products |= i.operation == WGMMA;
    bool in_shared = i.operation == LOAD_SHARED || i.operation == STORE_SHARED;
    if (in_shared && kSize[i.type] == 1) m.grain = 0;
  }
  m.shared.resize(shared);
  m.registers.resize(size_t(register_bytes) * kLanes * warp_count);
  m.track.resize((shared >> m.grain) + 1);
  std::mt19937 random(seed);
  std::vector<uint64_t> blocks(uint64_t(grid[0]) * grid[1] * grid[2]);
  for (size_t n = 0; n < blocks.size(); ++n) blocks[n] = n;
  if (seed) std::shuffle(blocks.begin(), blocks.end(), random);
  for (uint64_t block : blocks) {
    m.block = {uint32_t(block % grid[0]), uint32_t(block / grid[0] % grid[1]),
               uint32_t(block / grid[0] / grid[1])};
    run_block(m, seed ? &random : nullptr);
    if (!m.error.empty()) break;
  }
  std::strncpy(message, m.error.c_str(), room - 1);
  return m.error.empty() ? 0 : 1;
}
