// The form of the settings, for controllers. It is made of what the server says of each, so that it cannot differ from
// the API.

import { listen } from "./events.js"
import { ask } from "./login.js"
import { refusal } from "./session.js"

const REPLY_MS = 5000
/** A change is answered when it is seen in the stream. */
const CHANGE_MS = 35000
const WAITS = "waits for a restart of the server"

async function json(path, limit, options = {}) {
  const reply = await ask(path, { signal: AbortSignal.timeout(limit), ...options })
  if (!reply.ok) throw await refusal(reply)
  return reply.json()
}

/** Of a camera's stream, the camera and the server, in `root`, until it is closed. */
export class Form {
  /** `stream` as the server names it: with its camera before it, where that is not the first. */
  constructor(root, camera, stream) {
    const place = `api/cameras/${encodeURIComponent(camera)}`
    const short = stream.split("/").at(-1)
    this.root = root
    this.rows = new Map()
    this.parts = [
      [
        `Stream ${stream}`, `${place}/streams/${encodeURIComponent(short)}/settings`,
        all => all.cameras[camera].streams[short],
      ],
      [`Camera ${camera}`, `${place}/settings`, all => all.cameras[camera].settings],
      ["Server", null, all => all.server],
    ]
    this.isClosed = false
    this.leave = listen("settings", () => this.refresh())
    this.refresh()
  }

  close() {
    this.isClosed = true
    this.leave()
    this.root.replaceChildren()
  }

  async refresh() {
    try {
      const all = await json("api/settings", REPLY_MS)
      if (this.isClosed) return
      if (!this.rows.size) this.build(all)
      for (const [title, , of] of this.parts) {
        for (const [name, setting] of Object.entries(of(all))) this.rows.get(`${title} ${name}`)?.show(setting)
      }
    } catch (error) {
      const textContent = `The settings cannot be read: ${error.message}`
      this.root.replaceChildren(made("p", { textContent }, { role: "alert" }))
      this.rows.clear()
    }
  }

  build(all) {
    this.root.replaceChildren(...this.parts.map(([title, path, of]) => {
      const group = made("fieldset")
      group.append(made("legend", { textContent: title }))
      for (const [name, setting] of Object.entries(of(all))) {
        const send = value => path
          ? json(path, CHANGE_MS, patch({ [name]: value }))
          : json(`api/settings/${name}`, CHANGE_MS, patch({ value }))
        const row = new Row(name, { ...setting, id: `setting-${this.rows.size}` }, send)
        this.rows.set(`${title} ${name}`, row)
        group.append(row.element)
      }
      return group
    }))
  }
}

function patch(body) {
  return { method: "PATCH", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }
}

/** One setting: its control, or those of its fields, why it cannot be changed, and what came of the last change. */
class Row {
  constructor(name, setting, send) {
    this.send = send
    this.lock = made("small")
    // Both are read out when they change; an error at once.
    this.note = made("output")
    this.error = made("p", { id: `${setting.id}-error` }, { role: "alert" })
    this.element = made("div", { className: "setting", title: setting.description })
    const control = (field, schema, changed) => {
      const made = new Control(field, schema, value => this.change(made, changed(value)), this.error.id)
      return made
    }
    this.controls = setting.properties
      ? Object.entries(setting.properties)
        .map(([field, schema]) => control(field, schema, value => ({ [field]: value })))
      : [control(name, setting, value => value)]
    if (setting.properties) {
      this.element.setAttribute("role", "group")
      this.element.setAttribute("aria-label", name)
      this.element.append(made("span", { textContent: name }))
    }
    this.element.append(...this.controls.map(({ label }) => label), this.lock, this.note, this.error)
    this.element.classList.toggle("several", Boolean(setting.properties))
  }

  show(setting) {
    const wanted = setting.waiting ?? setting.value
    const locks = setting.locked ? [`given by ${setting.locked}`] : []
    for (const control of this.controls) {
      const schema = setting.properties?.[control.name]
      if (schema?.locked) locks.push(`${control.name} is given by ${schema.locked}`)
      const locked = Boolean(setting.locked ?? schema?.locked)
      control.show(schema ? wanted?.[control.name] : wanted, locked || setting.write !== "controller")
    }
    this.lock.textContent = locks.join("; ")
    if (setting.waiting !== undefined) this.note.textContent = WAITS
  }

  async change(control, value) {
    this.error.textContent = ""
    this.note.textContent = "…"
    control.input.removeAttribute("aria-invalid")
    try {
      const { waiting, not_kept: notKept } = await this.send(value)
      const waits = Object.keys(waiting).length ? WAITS : "done"
      this.note.textContent = notKept ? `${waits}, not kept: ${notKept}` : waits
    } catch (error) {
      this.note.textContent = ""
      this.error.textContent = error.message
      control.input.setAttribute("aria-invalid", "true")
    }
  }
}

/** An input for a value of a schema, with its label. What is left empty is null: as it is without being set. */
class Control {
  constructor(name, schema, changed, error) {
    const kinds = [schema.type].flat()
    this.name = name
    if (schema.enum) {
      this.input = made("select")
      this.input.append(...schema.enum.map(choice => new Option(choice ?? "by itself", choice ?? "")))
    } else if (kinds.includes("boolean")) {
      this.input = made("input", { type: "checkbox" })
    } else if (kinds.includes("integer") || kinds.includes("number")) {
      const least = schema.minimum ?? 0
      const step = kinds.includes("integer") ? 1 : "any"
      this.input = made("input", { type: "number", min: least, max: schema.maximum, step })
    } else {
      this.input = made("input", { type: "text", pattern: schema.pattern?.replace(/^\^|\$$/g, "") ?? ".*" })
    }
    // Each as URL, user name and credential.
    this.isOfServers = schema.items?.type === "object"
    if (this.isOfServers) this.input.placeholder = "turn:HOST:PORT USER CREDENTIAL, stun:HOST:PORT"
    this.isNumber = this.input.type === "number"
    this.isList = kinds.includes("array")
    this.input.addEventListener("change", () => { if (this.input.reportValidity()) changed(this.value) })
    if (schema.description) this.input.setAttribute("aria-description", schema.description)
    this.input.setAttribute("aria-errormessage", error)
    this.label = made("label")
    this.label.append(`${name}${schema["x-unit"] ? `, ${schema["x-unit"]}` : ""} `, this.input)
  }

  get value() {
    if (this.input.type === "checkbox") return this.input.checked
    if (this.input.value === "") return null
    if (this.isOfServers) {
      // A credential may have a comma in it.
      return this.input.value.split(/,\s+/).map(part => part.trim().split(/\s+/)).filter(([url]) => url)
        .map(([url, username, credential]) => ({ urls: [url], username, credential }))
    }
    if (this.isList) return this.input.value.split(",").map(part => part.trim()).filter(Boolean)
    return this.isNumber ? Number(this.input.value) : this.input.value
  }

  show(value, isLocked) {
    this.input.disabled = isLocked
    // What is being typed is not overwritten.
    if (document.activeElement === this.input && ["number", "text"].includes(this.input.type)) return
    if (this.input.type === "checkbox") this.input.checked = Boolean(value)
    else if (this.isOfServers) {
      const text = ({ urls, username, credential }) =>
        urls.map(url => [url, username, credential].filter(Boolean).join(" "))
      this.input.value = (value ?? []).flatMap(text).join(", ")
    } else this.input.value = Array.isArray(value) ? value.join(", ") : value ?? ""
  }
}

function made(name, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(name), properties)
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value)
  return element
}
