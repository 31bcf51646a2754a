module modelmeter.test/asking

go 1.21
