// FlexBuffers: one builder that is cleared and used again, verified and walked by its own header.
//
// A builder writes into its own vector, and the document is left there. It shares equal keys (the
// default) where they come again; in a document of one map that costs time and saves nothing, so there
// it is off, as its header says.
#include <flatbuffers/flexbuffers.h>

#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "bench/kv_format.h"

static uint64_t calls;

// All C++ of this program is in this file, so that these count its allocations and no others.
void *operator new(std::size_t len)
{
    calls++;
    void *block = std::malloc(len != 0 ? len : 1);
    if (block == nullptr)
        std::abort();
    return block;
}

void operator delete(void *block) noexcept
{
    std::free(block);
}

void operator delete(void *block, std::size_t) noexcept
{
    std::free(block);
}

namespace {

uint64_t allocs()
{
    return calls;
}

using flexbuffers::Builder;
using flexbuffers::Reference;

void put_text(Builder &b, const char *key, const text &value)
{
    b.Key(key);
    b.String(value.ptr, value.len);
}

void write_small(Builder &b, const small &s)
{
    b.Map([&]() {
        b.Int("attempt", s.attempt);
        b.Int("deadline", s.deadline_ns);
        put_text(b, "method", s.method);
        b.Bool("reply", s.reply);
        put_text(b, "service", s.service);
        put_text(b, "trace", s.trace);
        put_text(b, "user", s.user);
        b.Double("weight", s.weight);
    });
}

void write_medium(Builder &b, const medium &m)
{
    b.Map([&]() {
        b.Map("account", [&]() {
            b.Bool("active", m.active);
            b.Double("balance", m.balance);
            b.Int("id", m.account);
            put_text(b, "mail", m.mail);
            put_text(b, "name", m.name);
        });
        b.Int("created", m.created_ns);
        b.Vector("items", [&]() {
            for (unsigned i = 0; i < m.item_count; i++)
                b.Map([&]() {
                    b.Double("price", m.items[i].price);
                    b.Int("quantity", m.items[i].quantity);
                    put_text(b, "sku", m.items[i].sku);
                    put_text(b, "title", m.items[i].title);
                });
        });
        put_text(b, "note", m.note);
        b.Vector("tags", [&]() {
            for (unsigned i = 0; i < m.tag_count; i++)
                b.String(m.tags[i].ptr, m.tags[i].len);
        });
        b.Double("total", m.total);
        b.Int("version", m.version);
    });
}

void write_large(Builder &b, const large &l)
{
    b.Map([&]() {
        b.Vector("records", [&]() {
            for (unsigned i = 0; i < l.count; i++)
                b.Map([&]() {
                    const record &r = l.records[i];
                    b.Bool("active", r.active);
                    b.Int("id", r.id);
                    put_text(b, "mail", r.mail);
                    put_text(b, "name", r.name);
                    b.Map("position", [&]() {
                        b.Double("latitude", r.latitude);
                        b.Double("longitude", r.longitude);
                    });
                    b.Double("score", r.score);
                    b.Vector("tags", [&]() {
                        b.String(r.tags[0].ptr, r.tags[0].len);
                        b.String(r.tags[1].ptr, r.tags[1].len);
                    });
                });
        });
    });
}

size_t encode(const void *prepared, unsigned char *, size_t, const unsigned char **ret_own)
{
    static Builder lone(256, flexbuffers::BUILDER_FLAG_NONE);
    static Builder sharing(256);
    const document *d = static_cast<const document *>(prepared);
    Builder &b = d->kind == DOCUMENT_SMALL ? lone : sharing;
    b.Clear();
    switch (d->kind) {
    case DOCUMENT_SMALL:
        write_small(b, d->small);
        break;
    case DOCUMENT_MEDIUM:
        write_medium(b, d->medium);
        break;
    case DOCUMENT_LARGE:
        write_large(b, *d->large);
        break;
    }
    b.Finish();
    *ret_own = b.GetBuffer().data();
    return b.GetBuffer().size();
}

bool add_value(Reference value, sums *s)
{
    switch (value.GetType()) {
    case flexbuffers::FBT_BOOL:
        sum_bool(s, value.AsBool());
        return true;
    case flexbuffers::FBT_INT:
        sum_int(s, value.AsInt64());
        return true;
    case flexbuffers::FBT_FLOAT:
        sum_float(s, value.AsDouble());
        return true;
    case flexbuffers::FBT_STRING: {
        auto string = value.AsString();
        sum_text(s, string.c_str(), string.length());
        return true;
    }
    case flexbuffers::FBT_VECTOR: {
        auto vector = value.AsVector();
        for (size_t i = 0, n = vector.size(); i < n; i++)
            if (!add_value(vector[i], s))
                return false;
        return true;
    }
    case flexbuffers::FBT_MAP: {
        auto map = value.AsMap();
        auto keys = map.Keys();
        auto values = map.Values();
        for (size_t i = 0, n = keys.size(); i < n; i++) {
            const char *key = keys[i].AsKey();
            sum_key(s, key, std::strlen(key));
            if (!add_value(values[i], s))
                return false;
        }
        return true;
    }
    default:
        return false;
    }
}

bool decode(const unsigned char *bytes, size_t len, sums *s)
{
    // The tracker keeps shared keys from being verified again and again.
    static std::vector<uint8_t> tracker;
    return flexbuffers::VerifyBuffer(bytes, len, &tracker) &&
           add_value(flexbuffers::GetRoot(bytes, len), s);
}

void *open_document(const unsigned char *bytes, size_t len)
{
    if (!flexbuffers::VerifyBuffer(bytes, len))
        return nullptr;
    return new flexbuffers::Map(flexbuffers::GetRoot(bytes, len).AsMap());
}

bool get_fields(const void *opened, sums *s)
{
    const flexbuffers::Map &map = *static_cast<const flexbuffers::Map *>(opened);
    for (const char *key : {"method", "service", "trace", "user"}) {
        auto value = map[key];
        if (!value.IsString())
            return false;
        auto string = value.AsString();
        sum_text(s, string.c_str(), string.length());
    }
    for (const char *key : {"attempt", "deadline"}) {
        auto value = map[key];
        if (!value.IsInt())
            return false;
        sum_int(s, value.AsInt64());
    }
    auto reply = map["reply"], weight = map["weight"];
    if (!reply.IsBool() || !weight.IsFloat())
        return false;
    sum_bool(s, reply.AsBool());
    sum_float(s, weight.AsDouble());
    return true;
}

void *open_map(const entries *e)
{
    static Builder b(256, flexbuffers::BUILDER_FLAG_NONE);
    b.Map([&]() {
        for (size_t i = 0; i < e->count; i++)
            b.Int(e->keys[i].ptr, static_cast<int64_t>(i));
    });
    b.Finish();
    return open_document(b.GetBuffer().data(), b.GetBuffer().size());
}

int64_t get_entry(const void *opened, text key)
{
    return (*static_cast<const flexbuffers::Map *>(opened))[key.ptr].AsInt64();
}

kv_format make()
{
    kv_format format{};
    format.encode = encode;
    format.decode = decode;
    format.open = open_document;
    format.get_fields = get_fields;
    format.open_map = open_map;
    format.get_entry = get_entry;
    format.allocs = allocs;
    return format;
}

} // namespace

extern "C" {
extern const kv_format kv_flexbuffers = make();
}
