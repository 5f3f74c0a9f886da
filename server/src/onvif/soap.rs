//! SOAP 1.1 and 1.2: what is read of a request or a datagram, and the envelope of an answer. No DTD and no entities but
//! XML's own five; size, depth and number of elements have bounds.

use std::fmt::Write as _;
use std::sync::Arc;

use quick_xml::XmlVersion;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use thiserror::Error;

/// Of a message. Requests of recorders have some kilobytes.
pub const MAX_BYTES: usize = 64 << 10;
const MAX_DEPTH: usize = 32;
const MAX_ELEMENTS: usize = 1024;
/// Of all elements together: each may declare prefixes, and names are looked up among them.
const MAX_ATTRIBUTES: usize = 1024;

const SOAP_12: &str = "http://www.w3.org/2003/05/soap-envelope";
const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// WS-Addressing, as ONVIF has it beside WS-Discovery.
const ADDRESSING: &str = "http://www.w3.org/2005/08/addressing";
const FAULT: &str = "http://www.w3.org/2005/08/addressing/soap/fault";
/// Of what a client calls its message, which is given back.
const MAX_ID: usize = 256;

/// The namespaces of answers, which the root declares: prefix and name. SOAP's own is `s`.
const NAMESPACES: [(&str, &str); 12] = [
    ("tt", super::TT),
    ("tds", super::TDS),
    ("trt", super::TRT),
    ("tr2", super::TR2),
    ("tev", super::TEV),
    ("ter", super::TER),
    ("tns1", "http://www.onvif.org/ver10/topics"),
    ("wsnt", super::WSNT),
    ("wstop", "http://docs.oasis-open.org/wsn/t-1"),
    ("wsa5", ADDRESSING),
    ("rov", "urn:rov-server"),
    ("xs", "http://www.w3.org/2001/XMLSchema"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Soap11,
    Soap12,
}

impl Version {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Soap11 => "text/xml; charset=utf-8",
            Self::Soap12 => "application/soap+xml; charset=utf-8",
        }
    }

    fn namespace(self) -> &'static str {
        match self {
            Self::Soap11 => SOAP_11,
            Self::Soap12 => SOAP_12,
        }
    }
}

/// Why something is no SOAP message that is taken here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("the message is larger than {MAX_BYTES} bytes")]
    TooLong,
    #[error("the message is not UTF-8")]
    NotUtf8,
    #[error("the message is not well-formed XML: {0}")]
    NotXml(String),
    #[error("a message with a document type definition is not taken")]
    Dtd,
    #[error("the entity {0:?} is not one of XML's own")]
    Entity(String),
    #[error("elements are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("the message has more than {MAX_ELEMENTS} elements or {MAX_ATTRIBUTES} attributes")]
    TooMany,
    #[error("the prefix {0:?} is not declared")]
    Prefix(String),
    #[error("the message is not a SOAP envelope with one element in its body")]
    NoEnvelope,
}

/// Names are without prefixes: which prefix a client takes means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Empty: none. Shared, as a long one may be that of each element.
    pub namespace: Arc<str>,
    pub name: String,
    /// By local name; `xmlns` is not among them.
    attributes: Vec<(String, String)>,
    /// All of it, without that of its children, and without space at the ends.
    pub text: String,
    pub children: Vec<Element>,
    /// The prefixes that it declares.
    declared: Vec<(String, Arc<str>)>,
}

impl Element {
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        *self.namespace == *namespace && self.name == name
    }

    /// The first child of this name, whatever its namespace: clients mistake those of types and messages.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// What is written in such a child; None where it is empty too.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str()).filter(|text| !text.is_empty())
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub version: Version,
    pub header: Element,
    /// The one element of the body.
    pub body: Element,
    /// The prefixes that are declared where that one stands, and within it at its first level.
    prefixes: Vec<(String, Arc<str>)>,
}

impl Envelope {
    /// # Errors
    /// Says what is wrong with the message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut root = document(bytes)?;
        let version = match &*root.namespace {
            SOAP_12 => Version::Soap12,
            SOAP_11 => Version::Soap11,
            _ => return Err(Malformed::NoEnvelope),
        };
        let mut part = |name: &str| {
            let at = root.children.iter().position(|child| child.is(version.namespace(), name))?;
            Some(root.children.swap_remove(at))
        };
        let (header, body) = (part("Header").unwrap_or_default(), part("Body").ok_or(Malformed::NoEnvelope)?);
        let Ok([operation]) = <[Element; 1]>::try_from(body.children) else { return Err(Malformed::NoEnvelope) };
        if root.name != "Envelope" {
            return Err(Malformed::NoEnvelope);
        }
        let within = operation.children.iter().flat_map(|child| child.declared.iter().cloned());
        let prefixes: Vec<_> =
            root.declared.into_iter().chain(body.declared).chain(operation.declared.iter().cloned()).collect();
        let prefixes = prefixes.into_iter().chain(within).collect();
        Ok(Self { version, header, body: operation, prefixes })
    }

    /// Namespace and name of a qualified name in the text of a child of the body's element, as
    /// `dn:NetworkVideoTransmitter`. The namespace is None where the prefix is not declared.
    pub fn qualified<'a>(&'a self, text: &'a str) -> (Option<&'a str>, &'a str) {
        let (prefix, name) = text.split_once(':').unwrap_or(("", text));
        let declared = self.prefixes.iter().rev().find(|(known, _)| known == prefix);
        (declared.map(|(_, namespace)| &**namespace), name)
    }
}

/// The root element.
fn document(bytes: &[u8]) -> Result<Element, Malformed> {
    if bytes.len() > MAX_BYTES {
        return Err(Malformed::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8)?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let (mut open, mut root) = (Vec::<Element>::new(), None);
    let (mut elements, mut attributes) = (0, 0);
    loop {
        match reader.read_event().map_err(not_xml)? {
            Event::Start(start) => {
                elements += 1;
                if root.is_some() {
                    return Err(Malformed::NotXml("it has two roots".to_owned()));
                }
                if open.len() >= MAX_DEPTH {
                    return Err(Malformed::TooDeep);
                }
                let element = element(&start, &open, &mut attributes)?;
                if elements > MAX_ELEMENTS {
                    return Err(Malformed::TooMany);
                }
                open.push(element);
            }
            Event::End(_) => {
                let mut element = open.pop().ok_or(Malformed::NoEnvelope)?;
                element.text.truncate(element.text.trim_end().len());
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => root = Some(element),
                }
            }
            Event::Text(text) => append(&mut open, &text.xml10_content())?,
            Event::CData(text) => append(&mut open, &text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(not_xml)?.map(String::from);
                let predefined = || resolve_predefined_entity(&reference).map(str::to_owned);
                let text = character.or_else(predefined);
                append(&mut open, &text.ok_or_else(|| Malformed::Entity(shortened(&reference)))?)?;
            }
            Event::DocType(_) => return Err(Malformed::Dtd),
            Event::Eof if open.is_empty() => return root.ok_or(Malformed::NoEnvelope),
            Event::Eof => return Err(Malformed::NotXml("it is cut off".to_owned())),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::Empty(_) => {}
        }
    }
}

fn append(open: &mut [Element], text: &str) -> Result<(), Malformed> {
    match open.last_mut() {
        // Without space at its beginning.
        Some(Element { text: known, .. }) if known.is_empty() => known.push_str(text.trim_start()),
        Some(Element { text: known, .. }) => known.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(Malformed::NotXml("there is text beside its root".to_owned())),
    }
    Ok(())
}

fn element(start: &BytesStart, open: &[Element], count: &mut usize) -> Result<Element, Malformed> {
    let mut element = Element::default();
    for attribute in start.attributes() {
        *count += 1;
        if *count > MAX_ATTRIBUTES {
            return Err(Malformed::TooMany);
        }
        let attribute = attribute.map_err(|error| Malformed::NotXml(shortened(&error.to_string())))?;
        let value = attribute.normalized_value(XmlVersion::Explicit1_0).map_err(not_xml)?.into_owned();
        let name: &str = attribute.key.as_ref();
        match name.split_once(':').unwrap_or(("", name)) {
            ("", "xmlns") => element.declared.push((String::new(), value.into())),
            ("xmlns", prefix) => element.declared.push((prefix.to_owned(), value.into())),
            (_, name) => element.attributes.push((name.to_owned(), value)),
        }
    }
    let name = start.name();
    let name: &str = name.as_ref();
    if !is_name(name) {
        return Err(Malformed::NotXml(format!("{:?} is no name", shortened(name))));
    }
    let (prefix, name) = name.split_once(':').unwrap_or(("", name));
    let declared = open.iter().flat_map(|element| &element.declared).chain(&element.declared);
    let namespace = declared.rev().find(|(known, _)| known == prefix).map(|(_, namespace)| namespace.clone());
    element.namespace = match (namespace, prefix) {
        (Some(namespace), _) => namespace,
        (None, "") => Arc::default(),
        (None, "xml") => XML.into(),
        (None, prefix) => return Err(Malformed::Prefix(shortened(prefix))),
    };
    element.name = name.to_owned();
    Ok(element)
}

/// Which the parser does not look at.
fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "-_.:".contains(c);
    name.chars().all(is_part) && name.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn not_xml(error: quick_xml::Error) -> Malformed {
    match error {
        quick_xml::Error::Escape(quick_xml::escape::EscapeError::UnrecognizedEntity(_, name)) => {
            Malformed::Entity(shortened(&name))
        }
        error => Malformed::NotXml(shortened(&error.to_string())),
    }
}

/// What a client sent is not repeated to it, or to the log, at length.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// What a client called its message, as it is given back.
pub fn id(text: &str) -> String {
    text.chars().take(MAX_ID).collect()
}

/// What the header of an answer says by WS-Addressing, where that of the request says something so.
pub fn addressing(request: &Envelope, is_done: bool) -> String {
    let given = |name| request.header.children.iter().find(|one| one.is(ADDRESSING, name)).map(|one| id(&one.text));
    let (message, action) = (given("MessageID"), given("Action"));
    if message.is_none() && action.is_none() {
        return String::new();
    }
    let asked = action.unwrap_or_else(|| id(&format!("{}/{}", request.body.namespace, request.body.name)));
    let done = format!("{}Response", asked.strip_suffix("Request").unwrap_or(&asked));
    let action = if is_done { done } else { FAULT.to_owned() };
    value("wsa5:Action", action) + &message.map_or_else(String::new, |message| value("wsa5:RelatesTo", message))
}

/// An answer: what is in its header and in its body. Both use the prefixes of `NAMESPACES`.
pub fn envelope(version: Version, header: &str, body: &str) -> String {
    let mut text = format!(r#"<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="{}""#, version.namespace());
    for (prefix, namespace) in NAMESPACES {
        // Writing to a string does not fail.
        let _ = write!(text, r#" xmlns:{prefix}="{namespace}""#);
    }
    text.push('>');
    if !header.is_empty() {
        text += &tag("s:Header", header);
    }
    text + &tag("s:Body", body) + "</s:Envelope>"
}

/// An element with these elements in it.
pub fn tag(name: &str, content: &str) -> String {
    tag_with(name, "", content)
}

/// The same, with attributes as they are to be written.
pub fn tag_with(name: &str, attributes: &str, content: &str) -> String {
    let space = if attributes.is_empty() { "" } else { " " };
    format!("<{name}{space}{attributes}>{content}</{name}>")
}

/// An element with a value.
pub fn value(name: &str, value: impl ToString) -> String {
    tag(name, &escaped(value))
}

pub fn escaped(value: impl ToString) -> String {
    let value: String = value.to_string().chars().filter(|c| !c.is_control()).collect();
    escape(value).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_envelope(body: &str) -> String {
        format!(r#"<e:Envelope xmlns:e="{SOAP_12}" xmlns:d="urn:d"><e:Header/><e:Body>{body}</e:Body></e:Envelope>"#)
    }

    fn parse(body: &str) -> Result<Element, Malformed> {
        Envelope::parse(in_envelope(body).as_bytes()).map(|envelope| envelope.body)
    }

    #[test]
    fn prefixes_and_the_version_of_soap_are_the_clients_choice() {
        let expected = parse(r#"<d:Get a="1"><d:Token>x</d:Token></d:Get>"#).unwrap();
        assert!(expected.is("urn:d", "Get") && expected.attribute("a") == Some("1"));
        for body in [
            r#"<Get xmlns="urn:d" a="1"><Token>x</Token></Get>"#,
            r#"<z:Get xmlns:z="urn:d" z:a="1"><z:Token> x
            </z:Token></z:Get>"#,
            r#"<d:Get a="1"><!-- --><d:Token><![CDATA[x]]></d:Token></d:Get>"#,
            r#"<d:Get a="&#49;"><d:Token>&#x78;</d:Token></d:Get>"#,
        ] {
            let found = parse(body).unwrap();
            assert_eq!(
                (&found.namespace, &found.name, found.value("Token")),
                (&"urn:d".into(), &"Get".into(), Some("x"))
            );
            assert_eq!(found.attribute("a"), Some("1"), "{body}");
        }
        let old = in_envelope("<d:Get/>").replace(SOAP_12, SOAP_11);
        assert_eq!(Envelope::parse(old.as_bytes()).unwrap().version, Version::Soap11);
        let headless =
            format!(r#"<?xml version="1.0"?><Envelope xmlns="{SOAP_12}"><Body><Get xmlns=""/></Body></Envelope>"#);
        assert!(Envelope::parse(headless.as_bytes()).unwrap().body.is("", "Get"));
        let marked = format!("\u{feff}{}", in_envelope("<d:Get/>"));
        assert!(Envelope::parse(marked.as_bytes()).is_ok());
    }

    #[test]
    fn xmls_own_entities_are_characters_and_others_are_refused() {
        assert_eq!(parse("<d:Get>&lt;a&gt; &amp;&quot;&apos;</d:Get>").unwrap().text, "<a> &\"'");
        assert_eq!(parse("<d:Get>&secret;</d:Get>"), Err(Malformed::Entity("secret".to_owned())));
        assert_eq!(parse(r#"<d:Get a="&secret;"/>"#), Err(Malformed::Entity("secret".to_owned())));
        let with = |definition: &str| format!("{definition}{}", in_envelope("<d:Get>&a;</d:Get>"));
        for definition in [
            r#"<!DOCTYPE Envelope [<!ENTITY a "b">]>"#,
            r#"<!DOCTYPE Envelope SYSTEM "file:///etc/passwd">"#,
            r#"<?xml version="1.0"?><!DOCTYPE e [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>"#,
        ] {
            assert_eq!(Envelope::parse(with(definition).as_bytes()), Err(Malformed::Dtd), "{definition}");
        }
    }

    #[test]
    fn size_depth_and_number_have_bounds() {
        let nested = |depth: usize| format!("{}{}", "<d:A>".repeat(depth), "</d:A>".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH - 2)).is_ok());
        assert_eq!(parse(&nested(MAX_DEPTH - 1)), Err(Malformed::TooDeep));
        let many = |count: usize| format!("<d:Get>{}</d:Get>", "<d:A/>".repeat(count));
        assert!(parse(&many(MAX_ELEMENTS - 4)).is_ok());
        assert_eq!(parse(&many(MAX_ELEMENTS - 3)), Err(Malformed::TooMany));
        let attributes: String = (0..=MAX_ATTRIBUTES).map(|at| format!(" a{at}=''")).collect();
        assert_eq!(parse(&format!("<d:Get{attributes}/>")), Err(Malformed::TooMany));
        assert_eq!(parse(&format!("<d:Get>{}</d:Get>", "a".repeat(MAX_BYTES))), Err(Malformed::TooLong));
    }

    #[test]
    fn a_long_namespace_of_many_elements_is_there_once() {
        let long = "n".repeat(MAX_BYTES / 2);
        let body = parse(&format!("<Get xmlns='{long}'>{}</Get>", "<A/>".repeat(500))).unwrap();
        assert!(body.children.iter().all(|child| Arc::ptr_eq(&child.namespace, &body.namespace)));
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let envelope = in_envelope("<d:Get/>");
        for cut in 0..envelope.len() {
            assert!(Envelope::parse(&envelope.as_bytes()[..cut]).is_err(), "{}", &envelope[..cut]);
        }
        assert_eq!(Envelope::parse(b"\xff\xfe<"), Err(Malformed::NotUtf8));
        assert_eq!(parse("<f:Get/>"), Err(Malformed::Prefix("f".to_owned())));
        for body in ["", "<d:Get/><d:Get/>", "text"] {
            assert_eq!(parse(body), Err(Malformed::NoEnvelope), "{body}");
        }
        for text in [
            "<d:Get>",
            "<d:Get></d:Set>",
            "<d:Get a='1' a='2'/>",
            "<d:Get a=1/>",
            "<d:Get&a;/>",
            "<1/>",
            "&#0;",
            "<d:Get>&#xD800;</d:Get>",
        ] {
            assert!(matches!(parse(text), Err(Malformed::NotXml(_))), "{text}: {:?}", parse(text));
        }
        for text in [r#"<Envelope xmlns="urn:other"/>"#, "<a/><b/>", "a<b/>", "{}", &format!("{envelope}{envelope}")] {
            assert!(Envelope::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn qualified_names_in_texts_have_the_namespace_of_their_prefix() {
        let body = r#"<d:Probe><d:Types xmlns:n="urn:n">n:Device d:Device x:Device</d:Types></d:Probe>"#;
        let envelope = Envelope::parse(in_envelope(body).as_bytes()).unwrap();
        let names = envelope.body.value("Types").unwrap_or_default().split_whitespace();
        let found: Vec<_> = names.map(|name| envelope.qualified(name)).collect();
        assert_eq!(found, [(Some("urn:n"), "Device"), (Some("urn:d"), "Device"), (None, "Device")]);
    }

    #[test]
    fn an_answer_says_to_what_it_relates_where_the_request_has_a_name() {
        let answered = |header: &str, is_done| {
            let text = in_envelope("<d:Get/>").replace("<e:Header/>", &format!("<e:Header>{header}</e:Header>"));
            let header = addressing(&Envelope::parse(text.as_bytes()).unwrap(), is_done);
            let answer = Envelope::parse(envelope(Version::Soap12, &header, "<tds:A/>").as_bytes()).unwrap().header;
            let of = |name: &str| answer.children.iter().find(|one| one.is(ADDRESSING, name));
            (of("Action").map(|one| one.text.clone()), of("RelatesTo").map(|one| one.text.clone()))
        };
        let text = |text: &str| Some(text.to_owned());
        let named = format!("<MessageID xmlns='{ADDRESSING}'>urn:&lt;1></MessageID>");
        let action = |action: &str| format!("<Action xmlns='{ADDRESSING}'>{action}</Action>");
        for (header, expected) in [
            (String::new(), (None, None)),
            (named.replace("2005/08", "2004/08"), (None, None)),
            (named.clone(), (text("urn:d/GetResponse"), text("urn:<1>"))),
            (action("urn:d/Get"), (text("urn:d/GetResponse"), None)),
            (action("urn:d/GetRequest") + &named, (text("urn:d/GetResponse"), text("urn:<1>"))),
        ] {
            assert_eq!(answered(&header, true), expected, "{header}");
        }
        assert_eq!(answered(&action("urn:d/Get"), false), (text(FAULT), None));
        let (_, related) = answered(&named.replace("urn:", &"u".repeat(9999)), true);
        assert_eq!(related.map(|text| text.len()), Some(MAX_ID));
    }

    #[test]
    fn an_answer_is_an_envelope_that_can_be_read() {
        for version in [Version::Soap11, Version::Soap12] {
            let body = tag_with("tds:Get", r#"a="1""#, &value("tt:Name", "<&\"\u{1}>"));
            let text = envelope(version, &value("rov:Waiting", 5), &body);
            let read = Envelope::parse(text.as_bytes()).unwrap();
            assert_eq!((read.version, read.header.value("Waiting")), (version, Some("5")));
            assert_eq!((read.body.attribute("a"), read.body.value("Name")), (Some("1"), Some("<&\">")));
        }
    }
}
