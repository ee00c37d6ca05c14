#include "ptx.h"

#include <cctype>
#include <cstdlib>
#include <map>

// The source as tokens: words, which may begin with a dot, numbers, and single other characters. Comments are gone.
static std::vector<std::string> tokens_of(const std::string& s) {
  const auto in_word = [](char c) { return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '.'; };
  std::vector<std::string> tokens;
  for (size_t i = 0; i < s.size();) {
    if (isspace((unsigned char)s[i])) {
      i++;
    } else if (s.compare(i, 2, "//") == 0) {
      i = s.find('\n', i) == std::string::npos ? s.size() : s.find('\n', i);
    } else if (s.compare(i, 2, "/*") == 0) {
      i = s.find("*/", i) == std::string::npos ? s.size() : s.find("*/", i) + 2;
    } else if (in_word(s[i])) {
      size_t end = i;
      while (end < s.size() && in_word(s[end])) {
        end++;
      }
      tokens.push_back(s.substr(i, end - i));
      i = end;
    } else {
      tokens.push_back(s.substr(i, 1));
      i++;
    }
  }
  return tokens;
}

struct Variable {
  std::string name;
  size_t bytes, alignment;
};

// Reader walks over the tokens. Past the end it sees empty ones.
struct Reader {
  std::vector<std::string> tokens;
  size_t at = 0;

  const std::string& peek(size_t ahead = 0) const {
    static const std::string none;
    return at + ahead < tokens.size() ? tokens[at + ahead] : none;
  }

  bool done() const { return at >= tokens.size(); }

  std::string next() {
    std::string t = peek();
    at++;
    return t;
  }

  size_t number() { return strtoull(next().c_str(), nullptr, 0); }

  // variable reads what follows .param or .shared: [.align N] .TYPE NAME [N][M]...
  Variable variable() {
    Variable v{"", 1, 0};
    while (peek()[0] == '.') {
      const std::string directive = next();
      if (directive == ".align") {
        v.alignment = number();
      } else if (directive.size() > 2) {
        v.bytes = strtoull(directive.c_str() + 2, nullptr, 10) / 8;
      }
    }
    v.name = next();
    while (peek() == "[") {
      next();
      v.bytes *= peek() == "]" ? 0 : number();
      next();
    }
    v.alignment = v.alignment ? v.alignment : v.bytes;
    return v;
  }
};

static void add_shared(PtxEntry& entry, const Variable& v) {
  const size_t alignment = v.alignment ? v.alignment : 1;
  entry.static_shared = (entry.static_shared + alignment - 1) / alignment * alignment + v.bytes;
}

// read_entry reads from after .entry to the end of the kernel's body. shared has the module's own variables.
static PtxEntry read_entry(Reader& r, const std::map<std::string, Variable>& shared) {
  PtxEntry entry{};
  entry.name = r.next();
  while (!r.done() && r.peek() != "{") {
    const std::string token = r.next();
    if (token == ".param") {
      entry.parameters++;
      entry.parameter_bytes += r.variable().bytes;
    } else if (token == ".maxntid") {
      entry.max_threads = 1;
      do {
        entry.max_threads *= (unsigned)r.number();
      } while (r.peek() == "," && !r.next().empty());
    } else if (token == ".minnctapersm") {
      entry.min_blocks = (unsigned)r.number();
    }
  }
  std::map<std::string, Variable> unused = shared;
  int depth = 0;
  do {
    const std::string token = r.next();
    depth += token == "{" ? 1 : token == "}" ? -1 : 0;
    if (token == ".shared") {
      add_shared(entry, r.variable());
    } else if (unused.count(token)) {
      add_shared(entry, unused[token]);
      unused.erase(token);
    }
  } while (depth > 0 && !r.done());
  return entry;
}

Ptx parse_ptx(const std::string& source, std::string& error) {
  Reader r{tokens_of(source)};
  Ptx ptx{};
  std::map<std::string, Variable> shared;
  bool external = false;
  while (!r.done()) {
    const std::string token = r.next();
    if (token == ".version") {
      const std::string version = r.next();
      const size_t dot = version.find('.');
      ptx.version = atoi(version.c_str()) * 10 + (dot == std::string::npos ? 0 : atoi(version.c_str() + dot + 1));
    } else if (token == ".target") {
      const std::string target = r.next();
      ptx.target = target.compare(0, 3, "sm_") == 0 ? atoi(target.c_str() + 3) : 0;
      ptx.exact = target.back() == 'a';
    } else if (token == ".extern") {
      external = true;
    } else if (token == ".shared") {
      const Variable v = r.variable();
      if (!external) {
        shared[v.name] = v;
      }
    } else if (token == ".entry") {
      ptx.entries.push_back(read_entry(r, shared));
    } else if (token == ";") {
      external = false;
    }
  }
  if (!ptx.version || !ptx.target) {
    error = "Missing .version or .target directive";
  }
  return ptx;
}
