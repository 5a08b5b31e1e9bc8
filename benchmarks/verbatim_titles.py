"""Titles and questions for the clauses of `incomes_plugin/lab/verbatim/clauses.py`: data, written for this project.

`examples` is what a writer would give with the edit; `asked` is what callers ask, in words of their own; `near` are
questions close by that the text does not answer and that must be answered as if it were not there.
"""

from __future__ import annotations

from dataclasses import dataclass

from incomes_plugin.lab.verbatim.clauses import verbatim_texts


@dataclass(frozen=True)
class Titled:
    """One verbatim edit and what is asked about it."""

    begins: str
    title: str
    examples: tuple[str, ...]
    asked: tuple[str, ...]
    near: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return next(text for text in verbatim_texts() if text.startswith(self.begins))


_ROWS = """
Either party may cancel|Cancellation clause|How can the contract be cancelled?|What is the notice period for cancelling?|What does the cancellation clause say?|Quote the cancellation clause.|Can I see the exact wording of the clause on cancellation?|What does the arbitration clause say?|What is a cancellation clause?
Part number 7741|Part number and torque of the pump bolt|Which part number does the pump bolt have?|How tight is the pump bolt?|What is the part number of the pump bolt?|Give me part number and torque for the pump bolt.|What torque does the pump bolt need?|What is the part number of the fan belt?|What is torque?
Press and hold both|Reset procedure of the device|How do I reset the device?|What are the steps of a reset?|What is the reset procedure?|Tell me the reset procedure of the device.|How is the device reset?|What is the cleaning procedure of the device?|How do I reset my password?
Invoices are due|Payment terms|When are invoices due?|What are the payment terms?|What do the payment terms say?|Quote the payment terms.|What are our terms of payment for invoices?|What do the shipping terms say?|What is an invoice?
The deposit is returned|Deposit clause|When is the deposit returned?|Do I get my deposit back?|What does the deposit clause say?|Read me the clause about the deposit.|What is the wording of the deposit clause?|What does the insurance clause say?|How do banks handle deposits?
Do not open the housing|Safety notice for the housing|May I open the housing?|What is the safety notice for the housing?|What does the safety notice say about the housing?|Quote the safety notice for the housing.|When may the housing be opened?|What does the safety notice say about the ladder?|What is the housing market like?
Warranty claims must|Warranty claims|What must a warranty claim name?|How do I claim warranty?|What is needed for a warranty claim?|Quote the rule for warranty claims.|What does the text on warranty claims say?|How long is the warranty?|What is a warranty?
The tenant may keep|Pet clause|May the tenant keep pets?|What about dogs and cats?|What does the pet clause say?|Quote the pet clause of the lease.|What is the exact wording of the pet clause?|What does the parking clause say?|Which pet is best for children?
Rinse the filter|Filter cleaning procedure|How do I clean the filter?|How is the filter put back?|What is the procedure for cleaning the filter?|Tell me the filter cleaning procedure.|What are the exact steps to clean the filter?|What is the procedure for changing the oil?|How does a coffee filter work?
Orders placed after|Shipping cut-off|When do late orders leave the warehouse?|Until when must I order?|What is the shipping cut-off?|Quote the rule on the shipping cut-off.|When does an order placed in the evening leave?|What is the export limit?|How do warehouses work?
Ring the bell|Delivery instructions for gate 4|How do drivers deliver at gate 4?|What do I do at gate 4?|What are the delivery instructions for gate 4?|Give me the delivery instructions for gate 4.|What should a driver do at gate 4?|What are the delivery instructions for gate 9?|Who invented the bell?
Refunds are paid|Refund policy|How are refunds paid?|When do I get my refund?|What does the refund policy say?|Quote the refund policy.|What is the exact text of our refund policy?|What does the privacy policy say?|How do I write a refund policy?
If the pressure rises|Overpressure procedure|What do I do when the pressure is too high?|Which valve is closed first?|What is the overpressure procedure?|Tell me the overpressure procedure.|What are the exact steps when the pressure rises too high?|What is the fire procedure?|What is air pressure?
Members who resign|Resignation fee|What do members owe who resign?|Is there a fee for leaving?|What is the rule on the resignation fee?|Quote the clause on the resignation fee.|What fee is due when a member resigns early?|What is the rule on the entrance fee?|Why do people resign from jobs?
The password is changed|Password rule|How often is the password changed?|How long must a password be?|What is the password rule?|Quote the password rule.|What does the rule for passwords say?|What is the rule for visitors' phones?|What is a good password manager?
Store below 25|Storage instructions|How is it stored?|How long does it keep after opening?|What are the storage instructions?|Quote the storage instructions.|What do the storage instructions say?|What are the transport instructions?|How do I store red wine?
Claims under 200|Small claims rule|Do small claims need an expert?|How are small claims settled?|What is the small claims rule?|Quote the rule on small claims.|How are claims under 200 euros settled?|What is the rule on large claims?|What is small claims court?
Save the form|Instructions for form K-17|What do I do with form K-17?|How is form K-17 saved?|What are the instructions for form K-17?|Tell me the instructions for form K-17.|How is form K-17 handled?|What are the instructions for form B-2?|What is a form in HTML?
The licence covers|Licence grant|How many users does the licence cover?|When does the licence end?|What does the licence grant say?|Quote the licence grant.|What is the exact wording of the licence grant?|What does the liability clause say?|What is an open source licence?
Visitors sign|Visitor rule|What must visitors do?|May visitors bring cameras?|What is the visitor rule?|Quote the visitor rule.|What does the rule for visitors say?|What is the smoking rule?|How many visitors does the Louvre have?
El arrendatario|Cláusula de entrega de llaves|¿Cuándo se devuelven las llaves?|¿A qué hora hay que devolver las llaves?|¿Qué dice la cláusula de entrega de llaves?|Cita la cláusula de entrega de llaves.|¿Cuál es el texto de la cláusula sobre las llaves?|¿Qué dice la cláusula de seguros?|¿Qué es una llave inglesa?
Cualquiera de las partes|Cláusula de resolución|¿Cómo se puede resolver el contrato?|¿Qué preaviso hace falta?|¿Qué dice la cláusula de resolución?|Cita la cláusula de resolución del contrato.|¿Cuál es el texto de la cláusula de resolución?|¿Qué dice la cláusula de arbitraje?|¿Qué es un contrato?
No abra la tapa|Aviso de seguridad de la tapa|¿Cuándo no se debe abrir la tapa?|¿Se puede abrir la tapa?|¿Qué dice el aviso de seguridad de la tapa?|Cita el aviso de seguridad de la tapa.|¿Cuál es el aviso de la tapa?|¿Qué dice el aviso de la escalera?|¿Qué es una tapa en un bar?
Las facturas se pagan|Condiciones de pago|¿Cuándo se pagan las facturas?|¿Qué plazo de pago hay?|¿Qué dicen las condiciones de pago?|Cita las condiciones de pago.|¿Cuáles son las condiciones de pago de las facturas?|¿Qué dicen las condiciones de envío?|¿Qué es una factura?
La garantía no cubre|Exclusión de la garantía|¿Qué no cubre la garantía?|¿Cubre la garantía el agua de mar?|¿Cuál es la exclusión de la garantía?|Cita la exclusión de la garantía.|¿Qué dice el texto sobre la exclusión de la garantía?|¿Cuánto dura la garantía?|¿Qué es el agua de mar?
Los pedidos hechos|Salida de pedidos|¿Cuándo salen los pedidos?|¿Hasta qué hora se puede pedir?|¿Cuál es la regla de salida de pedidos?|Cita la regla de salida de pedidos.|¿Cuándo sale un pedido hecho por la tarde?|¿Cuál es la regla de las devoluciones?|¿Cómo se pide un taxi?
"""  # noqa: E501  one row an edit


def titled() -> list[Titled]:
    """All of them, English first."""
    found = []
    for row in _ROWS.strip().splitlines():
        begins, title, *rest = row.split("|")
        found.append(Titled(begins, title, tuple(rest[:2]), tuple(rest[2:5]), tuple(rest[5:])))
    return found
