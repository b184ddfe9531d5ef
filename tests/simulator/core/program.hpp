// A program as Python hands it over (program.py), and the state of a block of threads.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

// Python reads the names in these lists, in this order.
#define OPERATIONS(X)                                                                        \
  X(NOTHING) X(MEET) X(ADD) X(SUB) X(MUL) X(DIV) X(REM) X(MIN) X(MAX) X(AND) X(OR) X(XOR)    \
  X(SHL) X(SHR) X(MAD) X(FMA) X(NEG) X(ABS) X(NOT) X(POPC) X(BFE) X(PRMT) X(SHF) X(EX2)      \
  X(SETP) X(SELP) X(MOV) X(CVT) X(LOAD_PARAMETER) X(LOAD_GLOBAL) X(STORE_GLOBAL)             \
  X(LOAD_SHARED) X(STORE_SHARED) X(ADD_SHARED) X(LOAD_MATRIX) X(STORE_MATRIX) X(COPY)        \
  X(COMMIT_COPIES) X(WAIT_COPIES) X(SHUFFLE) X(BALLOT) X(REDUCE) X(ELECT) X(MMA) X(WGMMA)    \
  X(COMMIT_PRODUCTS) X(WAIT_PRODUCTS) X(FENCE_PROXY) X(INIT_BARRIER) X(INVALIDATE_BARRIER)   \
  X(EXPECT_BYTES) X(TRY_WAIT) X(COPY_TILE) X(BRANCH) X(BRANCH_TABLE) X(RETURN) X(BARRIER)
#define COMPARISONS(X)                                                                       \
  X(EQ) X(NE) X(LT) X(LE) X(GT) X(GE) X(EQU) X(NEU) X(LTU) X(LEU) X(GTU) X(GEU) X(NUM) X(NAN_)
#define TYPES(X)                                                                             \
  X(B8, 1) X(B16, 2) X(B32, 4) X(B64, 8) X(U8, 1) X(U16, 2) X(U32, 4) X(U64, 8) X(S8, 1)     \
  X(S16, 2) X(S32, 4) X(S64, 8) X(F16, 2) X(BF16, 2) X(F32, 4) X(F64, 8) X(F16X2, 4)         \
  X(BF16X2, 4) X(PRED, 1) X(TF32, 4)

#define NAME(name) name,
#define NAME_OF_TWO(name, size) name,
#define SIZE_OF_TWO(name, size) size,
enum Operation { OPERATIONS(NAME) };
enum Comparison { COMPARISONS(NAME) };
enum Type { TYPES(NAME_OF_TWO) };
constexpr int kSize[] = {TYPES(SIZE_OF_TWO)};

constexpr int kLanes = 32;
using Lanes = std::array<uint64_t, kLanes>;  // a value for each thread of a warp

// Layouts as in program.py.
struct Operand {
  enum Kind : int32_t { REGISTER, NUMBER, SPECIAL, NOWHERE };
  int32_t kind, size;
  int64_t value;  // a register's place, or the number
};
struct Instruction {
  int32_t operation, type, source_type;
  int32_t detail[4];           // what else the mnemonic says
  int32_t predicate, negated;  // predicate: a register's place, or -1
  int32_t outputs, inputs, first;  // operands: outputs, then inputs, from `first`
  int32_t target, line;
};
struct Region {
  uint64_t begin, end;
};

// What TMA is told of a matrix: packed by launch.py into the kernel's parameters.
struct TileMap {
  uint64_t address;
  uint32_t sizes[2], box[2];  // innermost dimension first
  uint64_t stride;            // bytes from row to row
  uint32_t itemsize, swizzle;
};

struct Copy {  // cp.async: lands when it is waited for
  uint32_t to;
  std::vector<uint8_t> bytes;
};
using Chunks = std::vector<uint32_t>;  // of 16 bytes of shared memory, which a product reads

struct Barrier {  // an mbarrier
  int expected, pending;
  int64_t bytes;
  int phase;
  std::vector<Copy> copies;  // they land when somebody waits for them
};

struct Warp {
  enum State { RUNS, AT_BARRIER, SPINS, ENDED };
  std::array<uint32_t, kLanes> next{};  // each thread's next instruction
  uint32_t alive = ~0u;
  State state = RUNS;
  std::vector<Copy> copies;                     // not committed yet
  std::vector<std::vector<Copy>> copy_groups;   // oldest first
  std::vector<Chunks> products;
  std::vector<std::vector<Chunks>> product_groups;
  std::vector<uint32_t> unfenced;  // places of Track that this warp wrote since its last fence
  uint32_t fenced = 0;             // in which epoch that was
};

// Who touched two bytes of shared memory. Epochs are counted at the barriers of the whole block.
struct Track {
  uint32_t written, read;  // epochs
  uint32_t readers;        // warps, a bit each, in the epoch `read`
  uint16_t in_flight;      // asynchronous products that may still read it
  uint8_t writer;          // warp + 1; 0: whoever reads it has waited for it
  bool unfenced;           // by a plain store, since when there was no proxy fence
};

struct Machine {
  const Instruction* code;
  const Operand* operands;
  const uint8_t* parameters;
  int length, register_bytes, warp_count;
  std::array<uint32_t, 3> grid, block;
  std::vector<Region> regions;  // what tensors own, in order
  std::vector<uint8_t> shared, registers;
  std::vector<Track> track;
  std::vector<Warp> warps;
  std::map<uint32_t, Barrier> barriers;  // by address
  uint32_t epoch = 1;
  int warp = 0, at = 0;  // what runs now
  std::string error;

  uint8_t* file() { return &registers[size_t(warp) * register_bytes * kLanes]; }
  Warp& self() { return warps[warp]; }
  // The first error is the one that counts.
  bool fail(const std::string& what) {
    if (error.empty()) {
      error = "block " + std::to_string(block[0]) + "," + std::to_string(block[1]) + "," +
              std::to_string(block[2]) + ", warp " + std::to_string(warp) + ", line " +
              std::to_string(code[at].line) + " of the PTX: " + what;
    }
    return false;
  }
};

#define FOR_LANES for (int lane = 0; lane < kLanes; ++lane)
#define FOR_ACTIVE(mask) FOR_LANES if ((mask) >> lane & 1)

inline void read(Machine& m, const Operand& from, Lanes& to) {
  const uint8_t* p = m.file() + from.value * kLanes;
  switch (from.kind == Operand::REGISTER ? from.size : 0) {
    case 1: FOR_LANES to[lane] = p[lane]; return;
    case 2: FOR_LANES to[lane] = reinterpret_cast<const uint16_t*>(p)[lane]; return;
    case 4: FOR_LANES to[lane] = reinterpret_cast<const uint32_t*>(p)[lane]; return;
    case 8: FOR_LANES to[lane] = reinterpret_cast<const uint64_t*>(p)[lane]; return;
  }
  if (from.kind == Operand::NUMBER) {
    to.fill(from.value);
  } else if (from.value == 0) {  // %tid.x
    FOR_LANES to[lane] = m.warp * kLanes + lane;
  } else if (from.value <= 3) {  // %ctaid
    to.fill(m.block[from.value - 1]);
  } else {  // %nctaid
    to.fill(m.grid[from.value - 4]);
  }
}

inline void write(Machine& m, const Operand& to, const Lanes& from, uint32_t mask) {
  if (to.kind != Operand::REGISTER) return;
  uint8_t* p = m.file() + to.value * kLanes;
  switch (to.size) {
    case 1: FOR_ACTIVE(mask) p[lane] = from[lane] & 1; return;
    case 2: FOR_ACTIVE(mask) reinterpret_cast<uint16_t*>(p)[lane] = from[lane]; return;
    case 4: FOR_ACTIVE(mask) reinterpret_cast<uint32_t*>(p)[lane] = from[lane]; return;
    default: FOR_ACTIVE(mask) reinterpret_cast<uint64_t*>(p)[lane] = from[lane];
  }
}
