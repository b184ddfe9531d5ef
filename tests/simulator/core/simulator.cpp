// The blocks of a grid one after the other, the warps of a block in turns.
#include <random>

#include "products.hpp"

namespace {

// Instructions that all threads of a warp run together: whoever comes first waits.
bool meets(int operation) {
  switch (operation) {
    case MEET: case SHUFFLE: case BALLOT: case REDUCE: case ELECT: case LOAD_MATRIX:
    case STORE_MATRIX: case MMA: case WGMMA: case COMMIT_PRODUCTS: case WAIT_PRODUCTS:
    case COMMIT_COPIES: case WAIT_COPIES: case TRY_WAIT: case BARRIER:
      return true;
  }
  return false;
}

// detail[0]: 0 up, 1 butterfly, 2 index.
bool shuffle(Machine& m, const Instruction& i, const Operand* in, const Operand* out) {
  Lanes value, by, bounds, to;
  read(m, in[0], value), read(m, in[1], by), read(m, in[2], bounds);
  FOR_LANES {
    int clamp = bounds[lane] & 31, segment = bounds[lane] >> 8 & 31, b = by[lane] & 31;
    int most = (lane & segment) | (clamp & ~segment);
    int from = i.detail[0] == 0   ? lane - b
               : i.detail[0] == 1 ? lane ^ b
                                  : (lane & segment) | (b & ~segment);
    bool stays = i.detail[0] == 0 ? from < most : from > most;
    to[lane] = value[stays ? lane : from];
  }
  write(m, out[0], to, ~0u);
  return true;
}

// detail[0]: 0 sum, 1 largest, 2 smallest.
uint64_t reduced(const Instruction& i, const Lanes& value) {
  uint32_t to = uint32_t(value[0]);
  for (int lane = 1; lane < kLanes; ++lane) {
    uint32_t other = uint32_t(value[lane]);
    bool less = is_signed(i.type) ? int32_t(other) < int32_t(to) : other < to;
    if (i.detail[0] == 0) to += other;
    else if ((i.detail[0] == 2) == less) to = other;
  }
  return to;
}

bool fused(Machine& m, const Instruction& i, const Lanes& a, const Lanes& b, const Lanes& c,
           Lanes& to) {
  if (i.type == F32) {
    FOR_LANES to[lane] = bits_of(std::fma(as_float(a[lane]), as_float(b[lane]), as_float(c[lane])));
    return true;
  }
  if (i.type != BF16 && i.type != F16) return m.fail("a fused product of this type");
  FOR_LANES {
    double product = to_double(a[lane], i.type) * to_double(b[lane], i.type);
    to[lane] = rounded(float(product + to_double(c[lane], i.type)), i.type);
  }
  return true;
}

uint64_t without_sign(uint64_t value, int type, bool negated) {
  if (!is_floating(type)) {
    int64_t number = extended(value, type);
    return cut(uint64_t(negated || number < 0 ? -number : number), type);
  }
  int half = half_of(type);
  uint64_t sign = uint64_t(1) << (8 * kSize[half] - 1);
  if (half != type) sign |= sign << 16;
  return negated ? value ^ sign : value & ~sign;
}

// Registers in, registers out.
bool compute(Machine& m, const Instruction& i, const Operand* in, const Operand* out,
             uint32_t mask) {
  Lanes a, b, c, to{};
  if (i.inputs > 0) read(m, in[0], a);
  if (i.inputs > 1) read(m, in[1], b);
  if (i.inputs > 2) read(m, in[2], c);
  switch (i.operation) {
    case MAD:
      if (!binary(m, i, a, b, to, mask)) return false;
      FOR_LANES to[lane] = i.detail[0] == 1 ? to[lane] + c[lane] : cut(to[lane] + c[lane], i.type);
      break;
    case FMA: if (!fused(m, i, a, b, c, to)) return false; break;
    case NEG: FOR_LANES to[lane] = without_sign(a[lane], i.type, true); break;
    case ABS: FOR_LANES to[lane] = without_sign(a[lane], i.type, false); break;
    case NOT: FOR_LANES to[lane] = i.type == PRED ? !a[lane] : cut(~a[lane], i.type); break;
    case POPC: FOR_LANES to[lane] = __builtin_popcountll(a[lane]); break;
    case BFE:
      FOR_LANES to[lane] = field(a[lane], uint32_t(b[lane]), uint32_t(c[lane]), i.type);
      break;
    case PRMT: FOR_LANES to[lane] = picked_bytes(a[lane], b[lane], c[lane]); break;
    case SHF:
      FOR_LANES to[lane] = (b[lane] << 32 | a[lane]) << (c[lane] & 31) >> 32;
      break;
    case EX2: FOR_LANES to[lane] = bits_of(std::exp2(as_float(a[lane]))); break;
    case SELP: FOR_LANES to[lane] = c[lane] & 1 ? a[lane] : b[lane]; break;
    case CVT:
      if (half_of(i.type) != i.type) {  // two numbers into one register, the second below
        int half = half_of(i.type);
        FOR_LANES to[lane] = rounded(as_float(b[lane]), half);
        FOR_LANES to[lane] |= rounded(as_float(a[lane]), half) << 16;
      } else {
        FOR_LANES to[lane] = converted(i, a[lane]);
      }
      break;
    case SETP: {
      int type = half_of(i.type);
      FOR_LANES to[lane] = compared(i, a[lane], b[lane], type);
      if (i.outputs > 1) {
        FOR_LANES c[lane] = compared(i, a[lane] >> 16, b[lane] >> 16, type);
        write(m, out[1], c, mask);
      }
      break;
    }
    case MOV: {  // of one register, or several numbers side by side in one
      int parts = std::max(i.inputs, i.outputs), bits = 8 * kSize[i.type] / parts;
      if (parts == 1) {
        to = a;
        break;
      }
      for (int n = 0; n < parts; ++n) {
        if (i.outputs > 1) {
          FOR_LANES to[lane] = cut(a[lane] >> bits * n, bits == 8 ? B8 : bits == 16 ? B16 : B32);
          write(m, out[n], to, mask);
        } else {
          read(m, in[n], b);
          FOR_LANES to[lane] |= b[lane] << bits * n;
        }
      }
      if (i.outputs > 1) return true;
      break;
    }
    case LOAD_PARAMETER: {
      int size = kSize[i.type];
      for (int n = 0; n < i.outputs; ++n) {
        uint64_t value = 0;
        std::memcpy(&value, m.parameters + in[0].value + n * size, size);
        to.fill(value);
        write(m, out[n], to, mask);
      }
      return true;
    }
    case BALLOT: {
      uint32_t bits = 0;
      FOR_LANES bits |= uint32_t(a[lane] & 1) << lane;
      to.fill(bits);
      break;
    }
    case REDUCE: to.fill(reduced(i, a)); break;
    case ELECT:
      FOR_LANES to[lane] = lane == 0;
      write(m, out[1], to, mask);
      to.fill(0);
      break;
    default:
      if (!binary(m, i, a, b, to, mask)) return false;
  }
  write(m, out[0], to, mask);
  return true;
}

bool step(Machine& m, const Instruction& i, uint32_t mask) {
  const Operand *out = m.operands + i.first, *in = out + i.outputs;
  Warp& self = m.self();
  switch (i.operation) {
    case NOTHING: case MEET: return true;
    case LOAD_GLOBAL: case LOAD_SHARED: return load(m, i, in, out, mask);
    case STORE_GLOBAL: case STORE_SHARED: return store(m, i, in, mask);
    case ADD_SHARED: return add_shared(m, in, out, i.outputs, mask);
    case LOAD_MATRIX: return load_matrix(m, i, in, out);
    case STORE_MATRIX: return store_matrix(m, i, in);
    case COPY: return copy(m, i, in, mask);
    case COMMIT_COPIES:
      self.copy_groups.push_back(std::move(self.copies));
      self.copies.clear();
      return true;
    case WAIT_COPIES: return wait_copies(m, i.detail[0]);
    case SHUFFLE: return shuffle(m, i, in, out);
    case MMA: return mma(m, i, in, out);
    case WGMMA: return wgmma(m, i, in, out);
    case COMMIT_PRODUCTS:
      self.product_groups.push_back(std::move(self.products));
      self.products.clear();
      return true;
    case WAIT_PRODUCTS: return wait_products(m, i.detail[0]);
    case FENCE_PROXY: return fence_proxy(m);
    case INIT_BARRIER: return init_barrier(m, in, mask);
    case INVALIDATE_BARRIER: return invalidate_barrier(m, in, mask);
    case EXPECT_BYTES: return expect_bytes(m, in, mask);
    case TRY_WAIT: return try_wait(m, in, out, mask);
    case COPY_TILE: return copy_tile(m, i, in, mask);
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

// Run the current warp until it waits, ends or fails. Of threads that went different ways, those
// with the lowest address go first; an instruction that they meet at is run when all are there.
void run_warp(Machine& m) {
  Warp& self = m.self();
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
          if (chosen == mask) {
            at = i.target;
          } else if (chosen) {
            FOR_ACTIVE(mask) self.next[lane] = chosen >> lane & 1 ? i.target : at;
            together = false;
            continue;
          }
          break;
        case BRANCH_TABLE: {
          Lanes index;
          read(m, m.operands[i.first], index);
          FOR_ACTIVE(mask) {
            int64_t to = m.operands[i.first + 1 + index[lane]].value;
            self.next[lane] = chosen >> lane & 1 ? uint32_t(to) : at;
          }
          together = false;
          continue;
        }
        case RETURN:
          self.alive &= ~chosen;
          together = false;
          break;
        case BARRIER: self.state = Warp::AT_BARRIER; break;
        default:
          self.state = Warp::RUNS;
          if (chosen && !step(m, i, chosen)) return;
      }
      bool spins = self.state == Warp::SPINS && i.operation == BRANCH;
      bool stops = spins || self.state == Warp::AT_BARRIER;
      if (!together || stops) FOR_ACTIVE(mask) self.next[lane] = at;
      if (stops) return;
    }
  }
  self.state = Warp::ENDED;
}

void run_block(Machine& m, std::mt19937* random) {
  std::vector<int> turns(m.warp_count);
  for (int n = 0; n < m.warp_count; ++n) turns[n] = n;
  std::fill(m.shared.begin(), m.shared.end(), 0xff);  // NaN, and far outside of everything
  std::fill(m.registers.begin(), m.registers.end(), 0xff);
  std::fill(m.track.begin(), m.track.end(), Track{});
  m.warps.assign(m.warp_count, Warp());
  m.barriers.clear();
  m.epoch = 1;
  for (int idle = 0; m.error.empty();) {
    if (random) std::shuffle(turns.begin(), turns.end(), *random);
    bool ran = false;
    for (int turn : turns) {
      m.warp = turn;
      if (m.self().state != Warp::RUNS && m.self().state != Warp::SPINS) continue;
      run_warp(m);
      ran = true;
      if (!m.error.empty()) return;
    }
    int ended = 0, arrived = 0, spinning = 0;
    for (const Warp& warp : m.warps) {
      ended += warp.state == Warp::ENDED;
      arrived += warp.state == Warp::AT_BARRIER;
      spinning += warp.state == Warp::SPINS;
    }
    if (ended == m.warp_count) return;
    if (arrived && arrived + ended == m.warp_count) {
      for (Warp& warp : m.warps) {
        if (warp.state == Warp::AT_BARRIER) warp.state = Warp::RUNS;
      }
      ++m.epoch;
      idle = 0;
    } else if (!ran || (spinning && ++idle > 1000)) {
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
  m.shared.resize(shared + 16);
  m.registers.resize(size_t(register_bytes) * kLanes * warp_count);
  m.track.resize(m.shared.size() / 2 + 1);
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
